//! Every hook reads, edits and answers; a call to `throw...` ends in a panic. The same guest stands
//! beside this one in C and in TypeScript.

use sipbox_guest::{
    BranchVerdict, Failure, Hooks, NoSettings, Party, Policy, ReplyVerdict, Request, Response,
    RouteOutcome, Target, Verdict, debug, export, verdict::uri_via,
};

struct Every;

fn lost(place: &str) -> ! {
    panic!("lost in {place}");
}

fn read(request: &Request) -> String {
    let (from, to) = (request.from(), request.to());
    let contact = request.contact();
    let body = request.body_length().to_string();
    [
        request.method(),
        request.request_uri().text(),
        from.user().unwrap_or("-"),
        from.host(),
        from.tag().unwrap_or("-"),
        to.uri(),
        request.call_id(),
        contact.and_then(Party::user).unwrap_or("-"),
        contact.map_or("-", Party::host),
        request.header("X-Probe").unwrap_or("-"),
        request.header("X-None").unwrap_or("-"),
        &body,
        request.tenant(),
    ]
    .join("|")
}

impl Policy for Every {
    type Settings = NoSettings;

    fn configure(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_route(&self, request: &Request) {
        let loose = request.route_outcome() == RouteOutcome::Loose;
        let text = if loose { "route loose" } else { "route other" };
        let _ = request.set_header("X-Hooks", text);
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let user = request.request_uri().user().unwrap_or_default();
        if user == "throw" {
            lost("on_request");
        }
        let refused =
            user == "throw-refused" && request.set_header("Via", "SIP/2.0/UDP nowhere").is_err();
        assert!(!refused, "Via is the host's");
        let uri = request.request_uri().text();
        let done = request
            .set_var("hooks", "1")
            .and_then(|()| request.set_header("X-Read", &read(request)))
            .and_then(|()| request.add_header("X-Hooks", "request"))
            .and_then(|()| request.arm(Hooks::BRANCH | Hooks::REPLY | Hooks::FAILURE));
        debug!("{done:?}");
        Verdict::relay()
            .to(uri_via(uri, "sip:192.0.2.9:5070"))
            .record_route()
            .into()
    }

    fn on_branch(&self, request: &Request, target: &Target) -> BranchVerdict {
        if request.request_uri().user() == Some("throw-branch") {
            lost("on_branch");
        }
        let _ = request.add_header("X-Hooks", &format!("branch {}", target.id));
        BranchVerdict::Keep
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        if response.to().user() == Some("throw-reply") {
            lost("on_reply");
        }
        let known = response.var("hooks").and_then(|n| n.parse::<u32>().ok());
        let count = (known.unwrap_or(0) + 1).to_string();
        let _ = response.set_var("hooks", &count);
        let text = format!("reply {} {count}", response.status());
        let _ = response.set_header("X-Hooks", &text);
        ReplyVerdict::Forward
    }

    fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
        if request.request_uri().user() == Some("throw-failure") {
            lost("on_failure");
        }
        debug!(
            "failed with {} {}, {} targets",
            failure.status,
            failure.reason,
            failure.failed.len()
        );
        Verdict::reply(480)
            .reason(&format!("Best was {}", failure.status))
            .into()
    }
}

export!(Every);
