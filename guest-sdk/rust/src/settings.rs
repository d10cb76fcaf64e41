//! Checks of what operators write into settings, so that every policy refuses the same
//! mistakes in the same words.

/// Transports that a next hop may name.
const TRANSPORTS: [&str; 5] = ["udp", "tcp", "tls", "ws", "wss"];

/// A next hop of the settings: `sip:host[:port][;transport=x]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    text: String,
    /// Where the host begins.
    host: usize,
}

impl NextHop {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, the text included.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("`{text}` {what}"));
        let Some(scheme) = ["sip:", "sips:"]
            .into_iter()
            .find(|scheme| text.starts_with(scheme))
        else {
            return wrong("is no SIP URI: it begins with `sip:` or `sips:`");
        };
        let rest = text.get(scheme.len()..).unwrap_or_default();
        if rest.contains('@') {
            return wrong("has a user: a next hop is a host");
        }
        if rest.contains('?') {
            return wrong("has header fields");
        }
        let (address, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = match address.rfind(']') {
            Some(end) => address.split_at(end + 1),
            None => address.split_at(address.find(':').unwrap_or(address.len())),
        };
        if !is_host(host) {
            return wrong("names no host");
        }
        let port = port.strip_prefix(':').or(port.is_empty().then_some("5060"));
        if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return wrong("has no good port");
        }
        for param in params.split(';').filter(|param| !param.is_empty()) {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            let known = |transport: &str| transport.eq_ignore_ascii_case(value);
            if name.eq_ignore_ascii_case("transport") && !TRANSPORTS.into_iter().any(known) {
                return Err(format!(
                    "`{text}`: transport `{value}` is none of {}",
                    TRANSPORTS.join(", ")
                ));
            }
            if !name
                .bytes()
                .chain(value.bytes())
                .all(|b| b.is_ascii_graphic())
            {
                return wrong("has a parameter that is none");
            }
        }
        Ok(Self {
            text: text.to_owned(),
            host: scheme.len(),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A Request-URI for it: with this user, if there is one.
    #[must_use]
    pub fn with_user(&self, user: Option<&str>) -> String {
        let (scheme, rest) = self.text.split_at(self.host);
        match user {
            Some(user) => [scheme, user, "@", rest].concat(),
            None => self.text.clone(),
        }
    }
}

/// Whether it may be a host name, an IPv4 address, or an IPv6 address in brackets.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !text.is_empty() && text.bytes().all(allowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_a_host_with_port_and_transport() {
        for good in [
            "sip:192.0.2.1",
            "sip:192.0.2.1:5080;transport=tcp",
            "sips:gw.example.com",
            "sip:[2001:db8::1]:5070",
            "sip:[2001:db8::1];transport=TLS;lr",
        ] {
            assert_eq!(NextHop::parse(good).unwrap().text(), good);
        }
        for (bad, word) in [
            ("192.0.2.1", "sip:"),
            ("tel:123", "sip:"),
            ("sip:", "host"),
            ("sip:a b", "host"),
            ("sip:[2001:db8::1", "host"),
            ("sip:2001:db8::1", "port"),
            ("sip:x:0", "port"),
            ("sip:x:70000", "port"),
            ("sip:bob@x", "user"),
            ("sip:x?Subject=y", "header"),
            ("sip:x;transport=sctp", "sctp"),
            ("sip:x;a b", "parameter"),
        ] {
            let reason = NextHop::parse(bad).unwrap_err();
            assert!(reason.contains(word) && reason.contains(bad), "{reason}");
        }
    }

    #[test]
    fn a_request_uri_keeps_its_user() {
        let hop = NextHop::parse("sip:192.0.2.1:5080;transport=tcp").unwrap();
        assert_eq!(
            hop.with_user(Some("bob")),
            "sip:bob@192.0.2.1:5080;transport=tcp"
        );
        assert_eq!(hop.with_user(None), hop.text());
    }
}
