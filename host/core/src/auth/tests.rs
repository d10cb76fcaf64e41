//! The check as a request meets it: challenge, answer, outcome.

use sipbox_sip::Index;

use super::*;

const T: TenantId = TenantId(0);
const NOW: WallTime = WallTime(1_700_000_000_000);

struct Bench {
    authenticator: Authenticator,
    realm: Realm,
    now: WallTime,
    source: IpAddr,
    request_uri: &'static str,
}

/// What a client puts into its answer.
#[derive(Clone, Copy)]
struct Client {
    user: &'static str,
    password: &'static str,
    algorithm: Algorithm,
    uri: &'static str,
    qop: Option<&'static str>,
    method: &'static str,
    header: &'static str,
}

const ALICE: Client = Client {
    user: "alice",
    password: "secret",
    algorithm: Algorithm::Md5,
    uri: "sip:example.com",
    qop: Some("auth"),
    method: "REGISTER",
    header: "Authorization",
};

impl Bench {
    fn new(algorithms: &[Algorithm]) -> Self {
        let origin = Origin { node: 0, boot: 1 };
        Self {
            authenticator: Authenticator::new(&[9; 32], origin, AuthSettings::default()),
            realm: Realm {
                name: "example.com".into(),
                proxy: false,
                algorithms: algorithms.iter().copied().collect(),
                strict_uri: true,
            },
            now: NOW,
            source: "192.0.2.1".parse().unwrap(),
            request_uri: "sip:example.com",
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = WallTime(self.now.0 + seconds * 1000);
    }

    fn challenges(&self) -> SmallVec<[String; 2]> {
        self.authenticator
            .challenge_values(T, &self.realm, self.now, false)
    }

    fn nonce(&self) -> String {
        let challenge = &self.challenges()[0];
        challenge
            .split("nonce=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    }

    fn check(&self, client: Client, nonce: &str, count: u32) -> AuthOutcome {
        self.send(client.method, &client.field(nonce, count))
    }

    fn send(&self, method: &str, fields: &str) -> AuthOutcome {
        let bytes = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n{fields}\r\n",
            self.request_uri
        );
        let mut index = Index::new();
        let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
        let check = Check {
            tenant: T,
            realm: &self.realm,
            message,
            request_uri: message.request_uri(),
            source: self.source,
            wall: self.now,
        };
        let stored = Ha1Set::of_password("alice", "example.com", "secret");
        self.authenticator
            .check(&check, |user| (user == "alice").then_some(&stored))
    }
}

impl Client {
    fn field(self, nonce: &str, count: u32) -> String {
        let nc = format!("{count:08x}");
        let ha1 = digest::ha1(
            self.algorithm,
            self.user.as_bytes(),
            b"example.com",
            self.password.as_bytes(),
        );
        let with_qop = self.qop.is_some();
        let answer = Answer {
            method: self.method.as_bytes(),
            uri: self.uri.as_bytes(),
            nonce: nonce.as_bytes(),
            nc: if with_qop { nc.as_bytes() } else { b"" },
            cnonce: if with_qop { b"c0" } else { b"" },
            qop: self.qop.map(str::as_bytes),
            body: b"",
        };
        let response = digest::response(self.algorithm, ha1.as_bytes(), &answer);
        let response = std::str::from_utf8(response.as_bytes()).unwrap().to_owned();
        let qop = self
            .qop
            .map(|qop| format!(", qop={qop}, nc={nc}, cnonce=\"c0\""));
        format!(
            "{}: Digest username=\"{}\", realm=\"example.com\", nonce=\"{nonce}\", uri=\"{}\", \
             response=\"{response}\", algorithm={}{}\r\n",
            self.header,
            self.user,
            self.uri,
            self.algorithm.token(),
            qop.unwrap_or_default()
        )
    }
}

fn proven() -> AuthOutcome {
    AuthOutcome::Authenticated("alice".into())
}

#[test]
fn the_right_password_proves_the_user_with_each_algorithm() {
    for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512_256] {
        let bench = Bench::new(&[algorithm]);
        let client = Client { algorithm, ..ALICE };
        assert_eq!(
            bench.check(client, &bench.nonce(), 1),
            proven(),
            "{algorithm:?}"
        );
    }
}

#[test]
fn without_credentials_of_the_realm_there_is_nothing_to_check() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    assert_eq!(bench.send("REGISTER", ""), AuthOutcome::None);
    let other_header = Client {
        header: "Proxy-Authorization",
        ..ALICE
    };
    assert_eq!(bench.check(other_header, &nonce, 1), AuthOutcome::None);
    let other_realm = ALICE
        .field(&nonce, 1)
        .replace("realm=\"example.com\"", "realm=\"other\"");
    assert_eq!(bench.send("REGISTER", &other_realm), AuthOutcome::None);
    let basic = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    assert_eq!(bench.send("REGISTER", basic), AuthOutcome::None);
}

#[test]
fn an_algorithm_that_the_realm_does_not_accept_is_no_answer() {
    let bench = Bench::new(&[Algorithm::Sha256]);
    assert_eq!(bench.check(ALICE, &bench.nonce(), 1), AuthOutcome::None);
}

#[test]
fn the_realms_credentials_are_found_among_others() {
    let bench = Bench::new(&[Algorithm::Sha256, Algorithm::Md5]);
    let nonce = bench.nonce();
    let wrong_md5 = Client {
        password: "wrong",
        ..ALICE
    };
    let right_sha = Client {
        algorithm: Algorithm::Sha256,
        ..ALICE
    };
    let foreign = ALICE
        .field(&nonce, 1)
        .replace("realm=\"example.com\"", "realm=\"other\"");
    let fields = format!(
        "{foreign}{}{}",
        wrong_md5.field(&nonce, 1),
        right_sha.field(&nonce, 1)
    );
    assert_eq!(bench.send("REGISTER", &fields), proven());
}

#[test]
fn one_challenge_for_each_algorithm_in_order() {
    let mut bench = Bench::new(&[Algorithm::Sha256, Algorithm::Md5]);
    bench.realm.name = "a \"b\\c\"".into();
    let values = bench
        .authenticator
        .challenge_values(T, &bench.realm, bench.now, true);
    assert_eq!(values.len(), 2);
    for (value, algorithm) in values.iter().zip(["SHA-256", "MD5"]) {
        let mut parts = value.split(", ");
        assert_eq!(parts.next(), Some("Digest realm=\"a \\\"b\\\\c\\\"\""));
        assert!(parts.next().unwrap().starts_with("nonce=\""));
        assert_eq!(parts.next(), Some("stale=true"));
        assert_eq!(parts.next(), Some(&*format!("algorithm={algorithm}")));
        assert_eq!(parts.next(), Some("qop=\"auth\""));
        sipbox_sip::auth::AuthParams::parse(value.as_bytes()).unwrap();
    }
    assert!(!bench.challenges()[0].contains("stale"));
}

#[test]
fn wrong_answers_are_refused() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    for (what, client) in [
        (
            "password",
            Client {
                password: "wrong",
                ..ALICE
            },
        ),
        (
            "user",
            Client {
                user: "nobody",
                ..ALICE
            },
        ),
        (
            "uri",
            Client {
                uri: "sip:elsewhere.example",
                ..ALICE
            },
        ),
        (
            "qop",
            Client {
                qop: Some("auth-int"),
                ..ALICE
            },
        ),
    ] {
        assert_eq!(
            bench.check(client, &nonce, 1),
            AuthOutcome::Refused,
            "{what}"
        );
    }
    let without_cnonce = ALICE.field(&nonce, 1).replace(", cnonce=\"c0\"", "");
    assert_eq!(
        bench.send("REGISTER", &without_cnonce),
        AuthOutcome::Refused
    );
    let short_count = ALICE.field(&nonce, 1).replace("nc=00000001", "nc=1");
    assert_eq!(bench.send("REGISTER", &short_count), AuthOutcome::Refused);
    // The answer covers the method.
    let answer = ALICE.field(&nonce, 1);
    assert_eq!(bench.send("INVITE", &answer), AuthOutcome::Refused);
    assert_eq!(
        bench.send("REGISTER", &answer),
        proven(),
        "none of those used the count up"
    );
}

#[test]
fn an_empty_response_does_not_prove_an_unknown_user() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    let nobody = Client {
        user: "nobody",
        ..ALICE
    }
    .field(&nonce, 1);
    let at = nobody.find("response=\"").unwrap() + 10;
    let emptied = format!("{}{}", &nobody[..at], &nobody[at + 32..]);
    assert_eq!(bench.send("REGISTER", &emptied), AuthOutcome::Refused);
}

#[test]
fn the_uri_is_compared_as_a_uri_unless_it_is_let_be() {
    let mut bench = Bench::new(&[Algorithm::Md5]);
    bench.request_uri = "sip:EXAMPLE.com";
    assert_eq!(bench.check(ALICE, &bench.nonce(), 1), proven());
    bench.request_uri = "sip:example.com:5060";
    assert_eq!(bench.check(ALICE, &bench.nonce(), 1), AuthOutcome::Refused);
    bench.realm.strict_uri = false;
    assert_eq!(bench.check(ALICE, &bench.nonce(), 1), proven());
}

#[test]
fn a_count_serves_once_and_a_replay_is_refused() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    assert_eq!(bench.check(ALICE, &nonce, 1), proven());
    assert_eq!(bench.check(ALICE, &nonce, 1), AuthOutcome::Refused);
    assert_eq!(bench.check(ALICE, &nonce, 3), proven());
    assert_eq!(
        bench.check(ALICE, &nonce, 2),
        proven(),
        "overtaken on its way"
    );
    assert_eq!(bench.check(ALICE, &nonce, 2), AuthOutcome::Refused);
    assert_eq!(bench.check(ALICE, &nonce, 0), AuthOutcome::Refused);
}

#[test]
fn replays_do_not_count_as_guesses() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    assert_eq!(bench.check(ALICE, &nonce, 1), proven());
    for _ in 0..20 {
        assert_eq!(bench.check(ALICE, &nonce, 1), AuthOutcome::Refused);
    }
    assert_eq!(bench.check(ALICE, &nonce, 2), proven());
}

#[test]
fn an_answer_without_qop_uses_its_nonce_up() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    let old = Client { qop: None, ..ALICE };
    assert_eq!(bench.check(old, &nonce, 1), proven());
    assert_eq!(bench.check(old, &nonce, 1), AuthOutcome::Stale);
}

#[test]
fn an_old_or_unknown_nonce_is_stale_whatever_the_answer() {
    let mut bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    let wrong = Client {
        password: "wrong",
        ..ALICE
    };
    assert_eq!(bench.check(ALICE, "made-up", 1), AuthOutcome::Stale);
    bench.pass(300);
    assert_eq!(bench.check(ALICE, &nonce, 1), AuthOutcome::Stale);
    for _ in 0..20 {
        assert_eq!(bench.check(wrong, &nonce, 1), AuthOutcome::Stale);
    }
    assert_eq!(
        bench.check(ALICE, &bench.nonce(), 1),
        proven(),
        "nothing was guessed"
    );
}

#[test]
fn a_nonce_that_fell_out_of_the_table_is_stale() {
    let origin = Origin { node: 0, boot: 1 };
    let settings = AuthSettings {
        nonce_table: 16,
        ..AuthSettings::default()
    };
    let bench = Bench {
        authenticator: Authenticator::new(&[9; 32], origin, settings),
        ..Bench::new(&[Algorithm::Md5])
    };
    let first = bench.nonce();
    assert_eq!(bench.check(ALICE, &first, 1), proven());
    for _ in 0..64 {
        assert_eq!(bench.check(ALICE, &bench.nonce(), 1), proven());
    }
    assert_eq!(bench.check(ALICE, &first, 1), AuthOutcome::Stale);
    assert_eq!(bench.check(ALICE, &first, 2), AuthOutcome::Stale);
}

#[test]
fn guessing_is_braked_for_one_source_and_account() {
    let mut bench = Bench::new(&[Algorithm::Md5]);
    for user in ["alice", "nobody"] {
        let wrong = Client {
            user,
            password: "wrong",
            ..ALICE
        };
        for n in 0..5 {
            assert_eq!(
                bench.check(wrong, &bench.nonce(), 1),
                AuthOutcome::Refused,
                "{user} {n}"
            );
        }
        assert_eq!(
            bench.check(wrong, &bench.nonce(), 1),
            AuthOutcome::Throttled,
            "{user}"
        );
    }
    assert_eq!(
        bench.check(ALICE, &bench.nonce(), 1),
        AuthOutcome::Throttled
    );
    bench.source = "192.0.2.2".parse().unwrap();
    assert_eq!(
        bench.check(ALICE, &bench.nonce(), 1),
        proven(),
        "another address is not hurt"
    );
    bench.source = "192.0.2.1".parse().unwrap();
    bench.pass(60);
    assert_eq!(bench.check(ALICE, &bench.nonce(), 1), proven());
}

#[test]
fn an_account_without_the_algorithms_hash_cannot_be_proven() {
    let bench = Bench::new(&[Algorithm::Sha256]);
    let client = Client {
        algorithm: Algorithm::Sha256,
        ..ALICE
    };
    let fields = client.field(&bench.nonce(), 1);
    let bytes = format!("REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n{fields}\r\n");
    let mut index = Index::new();
    let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
    let check = Check {
        tenant: T,
        realm: &bench.realm,
        message,
        request_uri: message.request_uri(),
        source: bench.source,
        wall: bench.now,
    };
    let md5_only = Ha1Set {
        sha256: None,
        ..Ha1Set::of_password("alice", "example.com", "secret")
    };
    assert_eq!(
        bench.authenticator.check(&check, |_| Some(&md5_only)),
        AuthOutcome::Refused
    );
}

#[test]
fn a_request_names_the_accounts_to_fetch() {
    let bench = Bench::new(&[Algorithm::Md5]);
    let nonce = bench.nonce();
    let proxy = Client {
        header: "Proxy-Authorization",
        user: "b\\\"ob",
        ..ALICE
    };
    let fields = format!("{}{}", ALICE.field(&nonce, 1), proxy.field(&nonce, 1));
    let bytes = format!("REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n{fields}\r\n");
    let mut index = Index::new();
    let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
    let named: Vec<_> = named_credentials(&message)
        .map(|n| (n.user, n.realm))
        .collect();
    let realm = String::from("example.com");
    assert_eq!(
        named,
        [("alice".into(), realm.clone()), ("b\"ob".into(), realm)]
    );
}

#[test]
fn secrets_stay_out_of_logs() {
    let set = Ha1Set::of_password("alice", "example.com", "secret");
    let bench = Bench::new(&[Algorithm::Md5]);
    let printed = format!("{set:?} {:?}", bench.authenticator);
    for hash in [&set.md5, &set.sha256, &bench.authenticator.dummy.md5] {
        assert!(!printed.contains(&**hash.as_ref().unwrap()));
    }
}
