//! URLs in configuration values: validation and redaction.

/// The parts of a URL that decide whether it is valid and what of it may be shown.
struct Parts<'a> {
    scheme: &'a str,
    has_credentials: bool,
    /// Host and port.
    host: &'a str,
    path: &'a str,
    /// The query and, invalid here, a fragment.
    rest: &'a str,
}

fn split(url: &str) -> Option<Parts<'_>> {
    let (scheme, after_scheme) = url.split_once("://")?;
    let authority_end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, after_authority) = after_scheme.split_at(authority_end);
    let (has_credentials, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (true, host),
        None => (false, authority),
    };
    let path_end = after_authority.find(['?', '#']).unwrap_or(after_authority.len());
    let (path, rest) = after_authority.split_at(path_end);
    is_host(host).then_some(Parts { scheme, has_credentials, host, path, rest })
}

/// Whether this is a host, perhaps with a port.
fn is_host(text: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    !host.is_empty() && host.chars().all(is_name) && port.is_none_or(is_port)
}

/// Whether this is the name or address of a host, and nothing else: no scheme, credentials or port.
pub(super) fn is_bare_host(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    address.parse::<std::net::Ipv6Addr>().is_ok() || (is_host(text) && !text.contains(':'))
}

/// The URL with its scheme in lower case, if it is valid and has one of these schemes.
pub(super) fn parse(text: &str, schemes: &[&str]) -> Option<String> {
    let parts = split(text)?;
    let scheme = parts.scheme.to_ascii_lowercase();
    let is_printable = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    // A fragment means nothing here: it is a password with a `#` that was not percent-encoded.
    let is_valid = schemes.contains(&scheme.as_str()) && is_printable && !parts.rest.contains('#');
    is_valid.then(|| format!("{scheme}{}", &text[scheme.len()..]))
}

/// The URL without credentials and query. `***` for an invalid URL, and where an `@` after the host could be the end of
/// credentials that were not percent-encoded.
pub(super) fn redact(url: &str, schemes: &[&str]) -> String {
    match split(url).filter(|_| parse(url, schemes).is_some()) {
        Some(Parts { scheme, has_credentials, host, path, rest })
            if !path.contains('@') && !rest.contains('@') =>
        {
            let credentials = if has_credentials { "***@" } else { "" };
            let query = if rest.is_empty() { "" } else { "?***" };
            format!("{scheme}://{credentials}{host}{path}{query}")
        }
        _ => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [&str; 3] = ["https", "redis", "rediss"];

    #[test]
    fn a_url_is_shown_without_credentials_and_query() {
        for (url, shown) in [
            ("redis://user:pa@ss@host:6379/1", "redis://***@host:6379/1"),
            ("redis://:password@[::1]:6379", "redis://***@[::1]:6379"),
            ("https://host/v1?key=abc", "https://host/v1?***"),
        ] {
            assert_eq!(redact(url, &SCHEMES), shown);
        }
    }

    #[test]
    fn a_url_that_may_hide_credentials_elsewhere_is_not_shown_at_all() {
        for url in [
            "redis://user:12#ss@host",
            "redis://user:12/ss@host",
            "redis://user:12?ss@host",
            "redis://:p#ss@host",
            "redis://user:password",
            "https://host/v1?key=a@b",
            "https://host/v1#abc",
            "password://host",
            "user:password@host",
            "://",
            "",
        ] {
            assert_eq!(redact(url, &SCHEMES), "***", "{url}");
        }
    }

    #[test]
    fn a_bare_host_has_no_scheme_credentials_or_port() {
        for host in ["localhost", "milvus.internal", "10.0.0.5", "::1", "[fe80::1]"] {
            assert!(is_bare_host(host), "{host}");
        }
        for other in
            ["", "user:password@host", "user@host", "http://host", "host:80", "[::1]:80", "host/path", "a b"]
        {
            assert!(!is_bare_host(other), "{other}");
        }
    }

    #[test]
    fn a_valid_url_has_a_known_scheme_in_any_case_and_a_host() {
        let parsed = |url| parse(url, &SCHEMES);
        assert_eq!(parsed("redis://:password@host").as_deref(), Some("redis://:password@host"));
        assert_eq!(parsed("REDISS://User:Pass@Host/1").as_deref(), Some("rediss://User:Pass@Host/1"));
        for url in ["redis:/host", "redis://", "redis://:6379", "ftp://host", "redis://h:x", "redis://h#x"] {
            assert_eq!(parsed(url), None, "{url}");
        }
    }
}
