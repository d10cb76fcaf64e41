//! SIP messages as the small user agent reads and writes them: the start line
//! and the header fields as text, nothing typed.

use std::fmt;

/// A request or response. Header fields keep their order and spelling.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line, without its end.
    pub start: String,
    /// Name and value of each header field, unfolded.
    pub headers: Vec<(String, String)>,
    /// The bytes after the empty line.
    pub body: Vec<u8>,
}

impl Message {
    /// A request with no header fields.
    #[must_use]
    pub fn request(method: &str, uri: &str) -> Self {
        Self {
            start: format!("{method} {uri} SIP/2.0"),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The response to `request` that RFC 3261 section 8.2.6 describes; a
    /// final or dialog-forming one gets `tag` in its To.
    #[must_use]
    pub fn response(request: &Self, status: u16, reason: &str, tag: &str) -> Self {
        let mut response = Self {
            start: format!("SIP/2.0 {status} {reason}"),
            headers: Vec::new(),
            body: Vec::new(),
        };
        for (name, value) in &request.headers {
            let full = full_name(name);
            let copied = matches!(full.as_str(), "via" | "from" | "to" | "call-id" | "cseq")
                || (full == "record-route" && (101..300).contains(&status));
            if copied {
                let value = if full == "to" && status != 100 && !value.contains(";tag=") {
                    format!("{value};tag={tag}")
                } else {
                    value.clone()
                };
                response.headers.push((name.clone(), value));
            }
        }
        response
    }

    /// Adds a header field at the end.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Replaces a header field that is there, or adds it.
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        let wanted = full_name(name);
        self.headers.retain(|(name, _)| full_name(name) != wanted);
        self.headers.push((name.to_owned(), value.to_string()));
    }

    /// Adds a header field at the top.
    pub fn insert_first(&mut self, name: &str, value: impl fmt::Display) {
        self.headers.insert(0, (name.to_owned(), value.to_string()));
    }

    /// Replaces the Request-URI.
    pub fn set_request_uri(&mut self, uri: &str) {
        self.start = format!("{} {uri} SIP/2.0", self.method());
    }

    /// The reason phrase; empty for a request.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self.status() {
            Some(_) => self.start.get(12..).unwrap_or_default(),
            None => "",
        }
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn with_body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.with("Content-Type", kind)
    }

    /// The bytes on the wire; Content-Length is added unless it is there.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.header("Content-Length").is_none() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads one whole message, as a datagram carries it.
    ///
    /// # Panics
    /// When there is no empty line or a header line has no colon: what we
    /// receive comes from the program under test, and that is a finding.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        let end =
            find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("no empty line in:\n{}", shown()));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let last = headers
                    .last_mut()
                    .unwrap_or_else(|| panic!("fold first:\n{}", shown()));
                last.1.push(' ');
                last.1.push_str(line.trim());
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("no colon in {line:?} of:\n{}", shown()));
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Self {
            start,
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    /// Reads the first message of a stream and how many bytes it took, or
    /// `None` if it is not all there yet. Leading CRLFs must be gone.
    #[must_use]
    pub fn parse_stream(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = find(bytes, b"\r\n\r\n")? + 4;
        let head = Self::parse(&bytes[..end]);
        let length: usize = head
            .header("Content-Length")
            .unwrap_or_else(|| panic!("no Content-Length on a stream:\n{head}"))
            .parse()
            .unwrap_or_else(|error| panic!("Content-Length: {error}:\n{head}"));
        let whole = bytes.get(..end + length)?;
        Some((Self::parse(whole), end + length))
    }

    /// The status code; `None` for a request.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method: of a request from its start line, of a response from CSeq.
    #[must_use]
    pub fn method(&self) -> String {
        let from = if self.status().is_some() {
            self.get("CSeq")
                .split_whitespace()
                .nth(1)
                .map(str::to_owned)
        } else {
            self.start.split(' ').next().map(str::to_owned)
        };
        from.unwrap_or_default()
    }

    /// The Request-URI.
    #[must_use]
    pub fn request_uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first header field of that name, compact forms included.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let wanted = full_name(name);
        self.headers
            .iter()
            .find(|(name, _)| full_name(name) == wanted)
            .map(|(_, value)| value.as_str())
    }

    /// The first header field of that name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.header(name)
            .unwrap_or_else(|| panic!("no {name} in:\n{self}"))
    }

    /// The values of all header fields of that name, split at commas outside
    /// quotes and angle brackets.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<String> {
        let wanted = full_name(name);
        let fields = self
            .headers
            .iter()
            .filter(|(name, _)| full_name(name) == wanted);
        fields.flat_map(|(_, value)| split_list(value)).collect()
    }

    /// The branch of the topmost Via.
    #[must_use]
    pub fn branch(&self) -> String {
        let via = self.values("Via").into_iter().next().unwrap_or_default();
        parameter(&via, "branch").unwrap_or_default()
    }

    /// The tag of From or To.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<String> {
        parameter(self.get(name), "tag")
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes()))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The value of `;name=value` in a header value, outside angle brackets.
#[must_use]
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let outside = value.rsplit_once('>').map_or(value, |(_, rest)| rest);
    outside.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// The URI of a name-addr or addr-spec.
#[must_use]
pub fn uri(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or(rest),
        None => value.split(';').next().unwrap_or(value).trim(),
    }
}

fn full_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let full = match lower.as_str() {
        "v" => "via",
        "f" => "from",
        "t" => "to",
        "i" => "call-id",
        "m" => "contact",
        "l" => "content-length",
        "c" => "content-type",
        "k" => "supported",
        "s" => "subject",
        _ => return lower,
    };
    full.to_owned()
}

fn split_list(value: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted, mut depth) = (Vec::new(), String::new(), false, 0);
    for c in value.chars() {
        match c {
            '"' => quoted = !quoted,
            '<' if !quoted => depth += 1,
            '>' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part.trim().to_owned());
    parts
}

/// Where `needle` starts.
#[must_use]
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let message = Message::request("INVITE", "sip:bob@lab.test")
            .with("Via", "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1")
            .with("Route", "<sip:a,b@x;lr>, \"x, y\" <sip:c>")
            .with_body("text/plain", "hello");
        let read = Message::parse(&message.bytes());
        assert_eq!(read.method(), "INVITE");
        assert_eq!(read.request_uri(), "sip:bob@lab.test");
        assert_eq!(read.branch(), "z9hG4bK1");
        assert_eq!(read.values("Route"), ["<sip:a,b@x;lr>", "\"x, y\" <sip:c>"]);
        assert_eq!(read.body, b"hello");
    }

    #[test]
    fn takes_one_message_at_a_time_from_a_stream() {
        let one = Message::request("OPTIONS", "sip:a")
            .with_body("text/plain", "abc")
            .bytes();
        let two = [one.clone(), one.clone()].concat();
        assert_eq!(Message::parse_stream(&two).unwrap().1, one.len());
        assert!(Message::parse_stream(&one[..one.len() - 1]).is_none());
    }

    #[test]
    fn a_response_copies_what_section_8_2_6_names() {
        let request = Message::request("INVITE", "sip:a")
            .with("v", "SIP/2.0/UDP h;branch=z9hG4bK1")
            .with("f", "<sip:x>;tag=1")
            .with("t", "<sip:y>")
            .with("i", "c")
            .with("CSeq", "1 INVITE")
            .with("Subject", "no");
        let response = Message::response(&request, 200, "OK", "me");
        assert_eq!(response.tag("To").as_deref(), Some("me"));
        assert_eq!(response.method(), "INVITE");
        assert!(response.header("Subject").is_none());
    }
}
