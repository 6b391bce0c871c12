//! ureq's errors as arshai's, without URLs.

use ::ureq::Timeout;

use crate::backends::http::errors::{
    RequestPhase, connect_timeout, deadline_error, dns_error, error, io_error, proxy_error, silence_timeout,
    tls_error, write_timeout,
};
use crate::{Error, ErrorKind};

/// The error of ureq in `phase`. Its own text is kept only where it cannot hold a URL or a header.
pub(super) fn from_ureq(cause: ::ureq::Error, phase: RequestPhase, has_proxy_credentials: bool) -> Error {
    use ::ureq::Error as E;
    let error = match cause {
        E::Timeout(Timeout::Connect | Timeout::Resolve) => return connect_timeout(),
        E::Timeout(Timeout::PerRead) => return silence_timeout(phase),
        E::Timeout(Timeout::PerWrite) => return write_timeout(phase),
        E::Timeout(_) => return deadline_error(phase),
        E::HostNotFound => return dns_error(),
        E::Io(cause) => return io_error(cause, phase),
        E::Rustls(cause) => return tls_error(cause, phase),
        E::ConnectionFailed => error(ErrorKind::Unavailable, "connection failed"),
        E::ConnectProxyFailed(reason) => return proxy_error(proxy_status(&reason), has_proxy_credentials),
        E::BadUri(_) | E::Http(_) => {
            return error(ErrorKind::InvalidInput, "invalid URL or header").not_sent();
        }
        E::Decompress(_, cause) => {
            error(ErrorKind::Protocol, "failed to decompress the body").with_source(cause)
        }
        E::LargeResponseHeader(size, limit) => error(ErrorKind::TooLarge, "response headers too large")
            .with_context("bytes", size)
            .with_context("limit", limit),
        // Ours, from the connector.
        E::Other(cause) => match cause.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(_) => error(ErrorKind::Transport, "request failed"),
        },
        E::Protocol(_) => error(ErrorKind::Protocol, "malformed HTTP response"),
        _ => error(ErrorKind::Transport, "request failed"),
    };
    error.with_outcome(phase.outcome())
}

/// The status in ureq's "proxy server responded 407/Proxy Authentication Required"; 502 for a proxy without one.
fn proxy_status(reason: &str) -> u16 {
    let mut numbers = reason.split(|c: char| !c.is_ascii_digit());
    numbers.find(|number| number.len() == 3).and_then(|number| number.parse().ok()).unwrap_or(502)
}
