//! One measurement: what is done, by how many callers, by whom.

use std::str::FromStr;

/// What each caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// One request and its response.
    Chat,
    /// Two model calls, two tools, and the conversation remembered.
    Turn,
    /// A streamed response.
    Streams,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Turn => "turn",
            Self::Streams => "streams",
        }
    }
}

/// A measurement, as a child process is told of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) work: Work,
    pub(crate) callers: usize,
    pub(crate) each: usize,
    pub(crate) delay_ms: u64,
    pub(crate) server: String,
}

impl Case {
    /// The limit of concurrent requests of every contender.
    pub(crate) fn max_connections(&self) -> usize {
        if self.work == Work::Streams { self.callers } else { 100 }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/{}/v1", self.server, self.delay_ms)
    }

    pub(crate) fn name(&self) -> String {
        let reply = if self.delay_ms == 0 { String::new() } else { format!("_{}ms_reply", self.delay_ms) };
        format!("{}_{}callers{reply}", self.work.name(), self.callers)
    }

    pub(crate) fn to_argument(&self) -> String {
        let Self { work, callers, each, delay_ms, server } = self;
        format!("{} {callers} {each} {delay_ms} {server}", work.name())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(' ').collect();
        let [work, callers, each, delay_ms, server] = parts[..] else { return Err(text.to_owned()) };
        let work = [Work::Chat, Work::Turn, Work::Streams].into_iter().find(|known| known.name() == work);
        let number = |text: &str| text.parse().map_err(|_| text.to_owned());
        Ok(Self {
            work: work.ok_or_else(|| text.to_owned())?,
            callers: number(callers)?,
            each: number(each)?,
            delay_ms: number(delay_ms)? as u64,
            server: server.to_owned(),
        })
    }
}
