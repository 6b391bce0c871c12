//! Lists of hosts in the configuration.

use std::net::IpAddr;

use crate::error::{Error, ErrorKind, Result};

/// The hosts that a setting such as `http.no_proxy` or `http.insecure_hosts` lists. For transport implementations.
///
/// An entry is `*` (every host), a host name or address, `host:port`, `.domain` or `*.domain` (the domain and all names
/// below it), or a network such as `10.0.0.0/8`, which matches addresses and not the names that resolve to them. Names
/// are compared without regard to case; IPv6 addresses may have brackets, and need them before a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPatterns(Vec<HostPattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// Without the leading dot.
    Domain(String),
    Network(IpAddr, u8),
}

impl HostPatterns {
    /// Reads the entries of the setting `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the setting and the first entry that is not a host.
    pub fn parse(key: &'static str, entries: &[String]) -> Result<Self> {
        let parse = |entry: &String| {
            HostPattern::parse(entry.trim()).ok_or_else(|| {
                // It may hold credentials.
                let entry = if entry.contains('@') { "***" } else { entry.as_str() };
                let message = format!(
                    "{key}: {entry:?} is not a host; expected e.g. models.internal, 10.0.0.5:8000, .internal, \
                     10.0.0.0/8 or *"
                );
                Error::new(ErrorKind::Config, "http", message).not_sent()
            })
        };
        entries.iter().map(parse).collect::<Result<_>>().map(Self)
    }

    /// Whether this is an entry.
    #[must_use]
    pub fn accepts(entry: &str) -> bool {
        HostPattern::parse(entry.trim()).is_some()
    }

    /// Whether an entry matches this host, which may be in brackets, and port.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = without_brackets(host).trim_end_matches('.');
        self.0.iter().any(|pattern| pattern.port.is_none_or(|own| own == port) && pattern.host.matches(host))
    }
}

impl HostPattern {
    fn parse(entry: &str) -> Option<Self> {
        if let Some((network, bits)) = entry.split_once('/') {
            let (network, bits) = (network.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
            let is_valid = bits <= if network.is_ipv4() { 32 } else { 128 };
            return is_valid.then_some(Self { host: Host::Network(network, bits), port: None });
        }
        let is_address = without_brackets(entry).parse::<IpAddr>().is_ok();
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !is_address => (host, Some(port.parse::<u16>().ok()?)),
            _ => (entry, None),
        };
        let name = without_brackets(host).trim_end_matches('.').to_ascii_lowercase();
        let domain = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        let host = match (name.as_str(), domain) {
            ("*", _) => Host::Any,
            (_, Some(domain)) => Host::Domain(valid_name(domain)?),
            (name, None) if name.parse::<IpAddr>().is_ok() => Host::Name(name.to_owned()),
            (name, None) => Host::Name(valid_name(name)?),
        };
        Some(Self { host, port })
    }
}

impl Host {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => name.eq_ignore_ascii_case(host),
            Self::Domain(domain) => {
                let host = host.to_ascii_lowercase();
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Network(network, bits) => {
                host.parse().is_ok_and(|address| is_in_network(address, *network, *bits))
            }
        }
    }
}

fn valid_name(name: &str) -> Option<String> {
    let is_valid = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!name.is_empty() && name.chars().all(is_valid)).then(|| name.to_owned())
}

fn is_in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether this host is `localhost` or a loopback address. No name is resolved.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || without_brackets(host).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(entry: &str, host: &str, port: u16) -> bool {
        HostPatterns::parse("http.no_proxy", &[entry.to_owned()]).expect(entry).matches(host, port)
    }

    #[test]
    fn an_entry_matches_a_host_a_port_a_domain_a_network_or_everything() {
        for (entry, host, port) in [
            ("Models.Internal", "models.internal", 443),
            ("models.internal:8000", "MODELS.internal", 8000),
            (".internal", "a.b.internal", 443),
            ("*.internal", "internal", 443),
            ("10.0.0.5:8000", "10.0.0.5", 8000),
            ("10.0.0.0/8", "10.200.3.4", 443),
            ("0.0.0.0/0", "8.8.8.8", 443),
            ("fd00::/8", "[fd00::1]", 443),
            ("[::2]:81", "[::2]", 81),
            ("::2", "[::2]", 81),
            ("*", "anything", 1),
            ("*:8000", "anything", 8000),
        ] {
            assert!(matches(entry, host, port), "{entry} {host}:{port}");
        }
        for (entry, host, port) in [
            ("models.internal", "a.models.internal", 443),
            ("models.internal:8000", "models.internal", 8001),
            (".internal", "evilinternal", 443),
            ("10.0.0.0/8", "11.0.0.1", 443),
            ("10.0.0.0/8", "ten.example", 443),
            ("10.0.0.5/32", "10.0.0.4", 443),
            ("*:8000", "anything", 443),
        ] {
            assert!(!matches(entry, host, port), "{entry} {host}:{port}");
        }
    }

    #[test]
    fn an_entry_that_is_not_a_host_names_the_setting_and_the_entry() {
        for entry in
            ["https://models.internal", "", "host:port", "10.0.0.0/33", "a b", "*x", "host:99999", "."]
        {
            let error = HostPatterns::parse("http.no_proxy", &[entry.to_owned()]).expect_err(entry);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(&format!("http.no_proxy: {entry:?}")), "{error}");
        }
    }
}
