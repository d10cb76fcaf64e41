//! A small user agent for tests that care about single messages: it sends what
//! it is told, answers what it is told, and repeats nothing on its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::digest::Challenge;
use crate::link::Link;
use crate::message::{Message, uri};

/// How long a message of a healthy proxy may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(5);

static SERIAL: AtomicU32 = AtomicU32::new(1);

/// A user with a socket.
#[derive(Debug)]
pub struct Agent {
    /// User part of the address of record.
    pub user: String,
    /// Domain of the address of record.
    pub domain: String,
    /// The socket.
    pub link: Link,
    /// The Contact URI that it gives.
    pub contact: String,
    tag: String,
    nonce_count: u32,
}

/// A number that no other message of this process has.
#[must_use]
pub fn unique() -> String {
    format!(
        "{:x}-{}",
        std::process::id(),
        SERIAL.fetch_add(1, Ordering::Relaxed)
    )
}

impl Agent {
    /// A user behind a datagram socket at `local`.
    #[must_use]
    pub fn udp(user: &str, domain: &str, local: SocketAddr, proxy: SocketAddr) -> Self {
        Self::over(user, domain, Link::udp(local, proxy))
    }

    /// A user with a connection to the proxy.
    #[must_use]
    pub fn tcp(user: &str, domain: &str, local: IpAddr, proxy: SocketAddr) -> Self {
        Self::over(user, domain, Link::tcp(local, proxy))
    }

    /// A user on that link.
    #[must_use]
    pub fn over(user: &str, domain: &str, link: Link) -> Self {
        let transport = if matches!(link, Link::Tcp { .. }) {
            ";transport=tcp"
        } else {
            ""
        };
        Self {
            user: user.to_owned(),
            domain: domain.to_owned(),
            contact: format!("sip:{user}@{}{transport}", link.local()),
            link,
            tag: unique(),
            nonce_count: 0,
        }
    }

    /// The address of record as a URI.
    #[must_use]
    pub fn aor(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    /// A Via value with a branch of its own.
    #[must_use]
    pub fn via(&self) -> String {
        format!(
            "SIP/2.0/{} {};branch=z9hG4bK{}",
            self.link.protocol(),
            self.link.local(),
            unique()
        )
    }

    /// A request outside dialogs, with all that RFC 3261 section 8.1.1 demands.
    #[must_use]
    pub fn request(&self, method: &str, uri: &str) -> Message {
        let to = if method == "REGISTER" {
            self.aor()
        } else {
            uri.to_owned()
        };
        let mut request = Message::request(method, uri)
            .with("Via", self.via())
            .with("Max-Forwards", 70)
            .with("From", format!("<{}>;tag={}", self.aor(), self.tag))
            .with("To", format!("<{to}>"))
            .with("Call-ID", unique())
            .with("CSeq", format!("1 {method}"));
        if matches!(method, "INVITE" | "REGISTER" | "SUBSCRIBE" | "OPTIONS") {
            request = request.with("Contact", format!("<{}>", self.contact));
        }
        request
    }

    /// The same request again as a new transaction.
    #[must_use]
    pub fn again(&self, request: &Message) -> Message {
        let mut next = request.clone();
        let number = cseq(request) + 1;
        next.set("CSeq", format!("{number} {}", request.method()));
        // The new Via goes where the old one was: first.
        let via = self.via();
        for (name, value) in &mut next.headers {
            if name == "Via" {
                value.clone_from(&via);
            }
        }
        next
    }

    /// Sends a message to the proxy.
    pub fn send(&mut self, message: &Message) {
        self.link.send(&message.bytes());
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes.
    pub fn receive(&mut self, wanted: &str) -> Message {
        self.link
            .receive(PATIENCE)
            .unwrap_or_else(|| panic!("{} waited in vain for {wanted}", self.user))
    }

    /// The next response to that request (by branch) with that status; 100 and
    /// repeated provisional ones are passed over.
    ///
    /// # Panics
    /// When another final response comes, or none.
    pub fn expect(&mut self, request: &Message, status: u16) -> Message {
        let response = self.answer_to(request, status < 200);
        assert_eq!(
            response.status(),
            Some(status),
            "expected {status}\n--- to\n{request}\n--- got\n{response}"
        );
        response
    }

    /// The next final response to that request, or also a provisional one but 100.
    ///
    /// # Panics
    /// When none comes.
    pub fn answer_to(&mut self, request: &Message, provisional: bool) -> Message {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.link.receive(left).unwrap_or_else(|| {
                panic!("{} waited in vain for the answer to\n{request}", self.user)
            });
            let ours = message.branch() == request.branch() && message.method() == request.method();
            match message.status() {
                Some(100) => {}
                Some(status) if ours && (status >= 200 || provisional) => return message,
                _ => {}
            }
        }
    }

    /// The next request of that method; repetitions of earlier ones and
    /// responses are passed over.
    ///
    /// # Panics
    /// When none comes.
    pub fn expect_request(&mut self, method: &str) -> Message {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self
                .link
                .receive(left)
                .unwrap_or_else(|| panic!("{} waited in vain for a {method}", self.user));
            if message.status().is_none() && message.method() == method {
                return message;
            }
        }
    }

    /// Whether nothing comes for that long.
    pub fn hears_nothing_for(&mut self, limit: Duration) -> bool {
        self.link.receive(limit).is_none()
    }

    /// Answers a request, with our Contact where a dialog may begin.
    pub fn respond(&mut self, request: &Message, status: u16, reason: &str) -> Message {
        let mut response = Message::response(request, status, reason, &self.tag);
        if request.method() == "INVITE" && (101..300).contains(&status) {
            response = response.with("Contact", format!("<{}>", self.contact));
        }
        self.link.answer(&response.bytes());
        response
    }

    /// ACK for a failure (RFC 3261 section 17.1.1.3).
    pub fn acknowledge(&mut self, invite: &Message, response: &Message) {
        let mut ack = Message::request("ACK", invite.request_uri());
        for name in ["Via", "Max-Forwards", "From", "Call-ID", "Route"] {
            if let Some(value) = invite.header(name) {
                ack = ack.with(name, value);
            }
        }
        let ack = ack
            .with("To", response.get("To"))
            .with("CSeq", format!("{} ACK", cseq(invite)));
        self.send(&ack);
    }

    /// CANCEL of a request (RFC 3261 section 9.1).
    #[must_use]
    pub fn cancel(&self, invite: &Message) -> Message {
        let mut cancel = Message::request("CANCEL", invite.request_uri());
        for name in ["Via", "Max-Forwards", "From", "To", "Call-ID", "Route"] {
            if let Some(value) = invite.header(name) {
                cancel = cancel.with(name, value);
            }
        }
        cancel.with("CSeq", format!("{} CANCEL", cseq(invite)))
    }

    /// Sends a request and, challenged with 401 or 407, the same with
    /// credentials. Gives the request that was answered last and its answer.
    pub fn authenticated(&mut self, request: Message, password: &str) -> (Message, Message) {
        self.send(&request);
        let response = self.answer_to(&request, false);
        let (challenge, credentials) = match response.status() {
            Some(401) => ("WWW-Authenticate", "Authorization"),
            Some(407) => ("Proxy-Authenticate", "Proxy-Authorization"),
            _ => return (request, response),
        };
        if request.method() == "INVITE" {
            self.acknowledge(&request, &response);
        }
        let challenge = Challenge::parse(response.get(challenge));
        self.nonce_count = 1;
        let value = challenge.answer(
            &self.user,
            password,
            &request.method(),
            request.request_uri(),
            self.nonce_count,
        );
        let mut again = self.again(&request);
        again.set(credentials, value);
        self.send(&again);
        let response = self.answer_to(&again, false);
        (again, response)
    }

    /// An INVITE and its final response, which is acknowledged if it is a failure.
    pub fn invite(&mut self, uri: &str) -> (Message, Message) {
        let invite = self.request("INVITE", uri);
        self.send(&invite);
        let answer = self.answer_to(&invite, false);
        if answer.status() != Some(200) {
            self.acknowledge(&invite, &answer);
        }
        (invite, answer)
    }

    /// A call that is answered at once.
    ///
    /// # Panics
    /// When it is refused.
    pub fn call(&mut self, uri: &str) -> Dialog {
        let (invite, answer) = self.invite(uri);
        self.begin(&invite, &answer)
    }

    /// The call that was answered, acknowledged.
    ///
    /// # Panics
    /// When it was refused.
    pub fn begin(&mut self, invite: &Message, answer: &Message) -> Dialog {
        assert_eq!(answer.status(), Some(200), "{answer}");
        let mut dialog = Dialog::of_caller(invite, answer);
        let ack = dialog.request(self, "ACK");
        self.send(&ack);
        dialog
    }

    /// Ends a call, and waits for the answer.
    ///
    /// # Panics
    /// When that is not 200.
    pub fn hang_up(&mut self, mut dialog: Dialog) {
        let bye = dialog.request(self, "BYE");
        self.send(&bye);
        self.expect(&bye, 200);
    }

    /// Registers our Contact.
    ///
    /// # Panics
    /// When the answer is not 200.
    pub fn register(&mut self, password: &str) -> Message {
        let request = self
            .request("REGISTER", &format!("sip:{}", self.domain))
            .with("Expires", 600);
        let (request, response) = self.authenticated(request, password);
        assert_eq!(
            response.status(),
            Some(200),
            "{request}\n--- got\n{response}"
        );
        response
    }
}

/// The number of CSeq.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn cseq(message: &Message) -> u32 {
    message
        .get("CSeq")
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap()
}

/// What one side of a dialog knows (RFC 3261 section 12).
#[derive(Debug, Clone)]
pub struct Dialog {
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    call_id: String,
    sequence: u32,
}

impl Dialog {
    /// The caller's side, from its INVITE and the 2xx (section 12.1.2).
    #[must_use]
    pub fn of_caller(invite: &Message, response: &Message) -> Self {
        let mut routes = response.values("Record-Route");
        routes.reverse();
        Self {
            local: response.get("From").to_owned(),
            remote: response.get("To").to_owned(),
            target: uri(response.get("Contact")).to_owned(),
            routes,
            call_id: response.get("Call-ID").to_owned(),
            sequence: cseq(invite),
        }
    }

    /// The callee's side, from the INVITE and the response sent (section 12.1.1).
    #[must_use]
    pub fn of_callee(invite: &Message, response: &Message) -> Self {
        Self {
            local: response.get("To").to_owned(),
            remote: invite.get("From").to_owned(),
            target: uri(invite.get("Contact")).to_owned(),
            routes: invite.values("Record-Route"),
            call_id: invite.get("Call-ID").to_owned(),
            sequence: 100,
        }
    }

    /// The next request in the dialog; ACK takes the number of the last one.
    pub fn request(&mut self, agent: &Agent, method: &str) -> Message {
        if method != "ACK" {
            self.sequence += 1;
        }
        let mut request = Message::request(method, &self.target)
            .with("Via", agent.via())
            .with("Max-Forwards", 70);
        for route in &self.routes {
            request = request.with("Route", route);
        }
        request = request
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{} {method}", self.sequence));
        if method == "INVITE" {
            request = request.with("Contact", format!("<{}>", agent.contact));
        }
        request
    }

    /// The other side has named another Contact (section 12.2.1.2).
    pub fn retarget(&mut self, uri: &str) {
        uri.clone_into(&mut self.target);
    }

    /// The route set.
    #[must_use]
    pub fn routes(&self) -> &[String] {
        &self.routes
    }
}
