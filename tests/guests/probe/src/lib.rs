//! Asks the host the questions that tests want answered, and puts the answers
//! into its verdict.

use serde::Deserialize;
use sipbox_guest::auth::Realm;
use sipbox_guest::verdict::registered;
use sipbox_guest::{
    BranchVerdict, Error, Failure, Hooks, Policy, ReplyVerdict, Request, Response, SourceClass,
    Target, Verdict, location, nat,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(rename = "do")]
    act: Act,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    /// Sets X-Probe, reads it back, answers with what it read.
    ReadsAfterEdits,
    /// Edits and asks the next policy.
    EditAndNext,
    /// Answers with X-Probe as it finds it.
    ShowHeader,
    /// Stages one of everything, then panics.
    StageAndPanic,
    /// Stages one of everything, and relays.
    StageAndRelay,
    /// Arms all later hooks.
    Arm,
    /// Answers with the facts.
    Facts,
    /// Counts calls in a global: an instance serves several.
    Count,
    /// Looks the Request-URI up and answers with the contacts.
    Lookup,
    /// Calls every function of `nat`, and answers with what they said.
    Mend,
}

struct Probe(Act);

impl Policy for Probe {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = &["probe"];

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self(settings.act))
    }

    fn on_request(&self, request: &Request) -> Verdict {
        match self.0 {
            Act::ReadsAfterEdits => {
                let edited = request.set_header("X-Probe", "after");
                let uri = request.set_request_uri("sip:other@example.org");
                let set = request.set_var("probe", "set");
                Verdict::reply(200)
                    .header("X-Edited", word(&edited))
                    .header("X-Uri", word(&uri))
                    .header("X-Set", word(&set))
                    .header("X-Read", request.header("X-Probe").unwrap_or("none"))
                    .header("X-Read-Uri", request.request_uri().text())
                    .header("X-Var", request.var("probe").unwrap_or_default())
                    .into()
            }
            Act::EditAndNext => {
                let _ = request.set_header("X-Probe", "edited");
                let _ = request.set_request_uri("sip:edited@example.org");
                let _ = request.set_var("probe", "from the first");
                Verdict::Next
            }
            Act::ShowHeader => Verdict::reply(200)
                .header("X-Saw", request.header("X-Probe").unwrap_or("none"))
                .header("X-Saw-Uri", request.request_uri().text())
                .header(
                    "X-Saw-Var",
                    request.var("probe").unwrap_or_else(|| "none".into()),
                )
                .into(),
            Act::StageAndPanic => {
                stage(request);
                panic!("with everything staged");
            }
            Act::StageAndRelay => {
                stage(request);
                Verdict::relay()
                    .to(registered("bob@example.org"))
                    .record_route()
                    .into()
            }
            Act::Arm => {
                let _ = request.arm(Hooks::BRANCH | Hooks::REPLY | Hooks::FAILURE);
                Verdict::Next
            }
            Act::Facts => facts(request),
            Act::Count => {
                use std::sync::atomic::{AtomicU32, Ordering};
                static CALLS: AtomicU32 = AtomicU32::new(0);
                let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
                Verdict::reply(200)
                    .header("X-Calls", calls.to_string())
                    .into()
            }
            Act::Mend => mend(request),
            Act::Lookup => {
                let aor = request.request_uri().aor().unwrap_or_default();
                match location::lookup(&aor) {
                    Ok(bindings) => bindings
                        .iter()
                        .fold(Verdict::reply(200), |reply, b| {
                            reply.header("X-Contact", b.contact.clone())
                        })
                        .into(),
                    Err(error) => Verdict::reply(500)
                        .header("X-Error", word::<()>(&Err(error)))
                        .into(),
                }
            }
        }
    }

    fn on_branch(&self, request: &Request, target: &Target) -> BranchVerdict {
        let _ = request.set_header("X-Branch", &target.id.to_string());
        if target.id == 13 {
            BranchVerdict::Skip
        } else {
            BranchVerdict::Keep
        }
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        if matches!(self.0, Act::Mend) {
            let facts = response.classify_source(SourceClass::all());
            let mended = nat::fix_nated_contact("", false);
            let refused = [nat::force_rport(), nat::add_rcv_param(true)];
            let said = format!(
                "{facts:?} {} {}",
                word(&mended),
                refused.map(|r| word(&r)).join(" ")
            );
            let _ = response.set_header("X-Mended", &said);
            return ReplyVerdict::Forward;
        }
        let refused = Request::current().set_request_uri("sip:out@of.place");
        let _ = response.set_header("X-Reply", word(&refused));
        if response.status() == 183 {
            ReplyVerdict::Drop
        } else {
            ReplyVerdict::Forward
        }
    }

    fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
        if failure.cancelled {
            return Verdict::Next;
        }
        let failed: Vec<String> = failure
            .failed
            .iter()
            .map(|f| format!("{}={}", f.id, f.status))
            .collect();
        Verdict::reply(failure.status)
            .header("X-Method", request.method())
            .header("X-Failed", failed.join(","))
            .into()
    }
}

fn mend(request: &Request) -> Verdict {
    let facts = request.classify_source(SourceClass::all());
    let said = [
        word(&nat::force_rport()),
        word(&nat::fix_nated_contact("a>", false)),
        word(&nat::fix_nated_contact(";ob", true)),
        word(&nat::add_rcv_param(false)),
        word(&nat::fix_nated_register()),
        word(&nat::set_binding_flags(nat::BindingFlags::SIPPING)),
        word(&nat::fix_nated_sdp(
            nat::SdpFixes::REWRITE_MEDIA_IP,
            "",
            "no line",
        )),
        word(&nat::fix_nated_sdp(
            nat::SdpFixes::REWRITE_MEDIA_IP,
            "192.0.2.7",
            "",
        )),
        word(&nat::fix_nated_sdp(
            nat::SdpFixes::ADD_DIR_ACTIVE,
            "",
            "a=x",
        )),
    ];
    let restored = match nat::restore_nated_ruri() {
        Ok(restored) => restored.to_string(),
        Err(error) => word::<()>(&Err(error)).to_owned(),
    };
    Verdict::reply(200)
        .header("X-Facts", format!("{facts:?}"))
        .header("X-Mended", said.join(" "))
        .header("X-Restored", restored)
        .into()
}

fn stage(request: &Request) {
    let _ = request.set_header("X-Probe", "staged");
    let _ = request.set_var("probe", "staged");
    let _ = request.add_route_param("probe", "staged");
    let _ = request.arm(Hooks::FAILURE);
    let _ = Realm::proxy("example.org").challenge();
    let _ = location::remove("bob@example.org");
}

fn facts(request: &Request) -> Verdict {
    let source = request.source();
    let from = request.from();
    let to = request.to();
    let uri = request.request_uri();
    Verdict::reply(200)
        .header("X-Method", request.method())
        .header(
            "X-Uri",
            format!(
                "{}|{}|{}",
                uri.user().unwrap_or_default(),
                uri.host(),
                uri.port().map_or(0, u32::from)
            ),
        )
        .header(
            "X-From",
            format!("{}|{}", from.uri(), from.tag().unwrap_or_default()),
        )
        .header(
            "X-To",
            format!("{}|{}", to.uri(), to.tag().unwrap_or_default()),
        )
        .header("X-Call-Id", request.call_id())
        .header(
            "X-Cseq",
            format!(
                "{} {}",
                request.cseq_number().unwrap_or_default(),
                request.cseq_method()
            ),
        )
        .header("X-Source", format!("{}:{}", source.address, source.port))
        .header("X-Tenant", request.tenant())
        .header("X-Listener", request.listener())
        .header("X-Now", request.now().seconds.to_string())
        .header("X-In-Dialog", request.in_dialog().to_string())
        .header(
            "X-Route-Param",
            request.route_param("nat").unwrap_or("none"),
        )
        .header("X-Subject", request.header("s").unwrap_or("none"))
        .header(
            "X-Unknown",
            request.header("X-Unknown-Field").unwrap_or("none"),
        )
        .header("X-Headers", request.all_headers().count().to_string())
        .header("X-Body", request.body_length().to_string())
        .into()
}

fn word<T>(outcome: &Result<T, Error>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(Error::OutOfPlace(_)) => "out-of-place",
        Err(Error::Malformed(_)) => "malformed",
        Err(Error::Protected(_)) => "protected",
        Err(Error::UnknownOption(_)) => "unknown-option",
        Err(Error::Limit(_)) => "limit",
        Err(Error::Unavailable(_)) => "unavailable",
    }
}

sipbox_guest::export!(Probe);
