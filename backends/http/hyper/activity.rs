//! When a connection moved bytes last, for timeouts of silence.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connect::Io;
use crate::Error;
use crate::backends::http::errors::{RequestPhase, silence_timeout, write_timeout};
use crate::backends::http::settings::Settings;

/// Written by the socket and read by the task that waits for it.
pub(super) struct Activity {
    opened: Instant,
    last_ns: AtomicU64,
    is_write_blocked: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (last_ns, is_write_blocked) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { opened: Instant::now(), last_ns, is_write_blocked })
    }

    pub(super) fn touch(&self) {
        let ns = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_ns.store(ns, Ordering::Relaxed);
    }

    /// Ready when the connection was silent for too long. `sleep` is this call's.
    pub(super) fn poll_silence(
        &self,
        mut sleep: Pin<&mut Sleep>,
        settings: &Settings,
        phase: RequestPhase,
        context: &mut Context<'_>,
    ) -> Poll<Error> {
        let is_write_blocked = self.is_write_blocked.load(Ordering::Relaxed);
        let limit = match phase {
            _ if is_write_blocked => settings.write_timeout,
            RequestPhase::Body => settings.read_timeout,
            _ => settings.first_byte_timeout,
        };
        let last = self.opened + Duration::from_nanos(self.last_ns.load(Ordering::Relaxed));
        let due = last + limit;
        // A later time is set only when the earlier one has come: this runs for every chunk.
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if due <= Instant::now() {
                return Poll::Ready(if is_write_blocked {
                    write_timeout(phase)
                } else {
                    silence_timeout(phase)
                });
            }
            sleep.as_mut().reset(due);
        }
    }
}

/// A socket that records its activity.
pub(super) struct TrackedIo {
    io: Io,
    activity: Arc<Activity>,
}

impl TrackedIo {
    pub(super) fn new(io: Io, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }

    fn wrote<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.is_write_blocked.store(written.is_pending(), Ordering::Relaxed);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }
}

impl AsyncRead for TrackedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if read.is_ready() {
            self.activity.touch();
        }
        read
    }
}

impl AsyncWrite for TrackedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        // Not activity: hyper flushes whenever it is polled.
        self.activity.is_write_blocked.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
