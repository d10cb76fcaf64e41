//! A member of a chain that tells what it sees of the others: what they edited, in which order
//! they were asked, and which of their variables it can read.

use serde::Deserialize;
use sipbox_guest::verdict::uri_via;
use sipbox_guest::{
    BranchVerdict, Failure, Hooks, Policy, ReplyVerdict, Request, Response, Target, Verdict,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// How it is called.
    mark: String,
    /// Where it sends requests; none: the next policy decides.
    #[serde(default)]
    to: Option<String>,
    /// Where it sends what has failed.
    #[serde(default)]
    instead: Option<String>,
    /// The hook that goes wrong when the user of the Request-URI is `trap`; `dialog`: all
    /// requests of dialogs do.
    #[serde(default)]
    trap: String,
}

struct Member(Settings);

/// What was there, and this behind it.
fn longer(before: Option<&str>, more: &str) -> String {
    match before {
        Some(before) => format!("{before},{more}"),
        None => more.to_owned(),
    }
}

impl Member {
    fn goes_wrong_in(&self, hook: &str, request: &Request) {
        let user = request.request_uri().user();
        assert!(
            self.0.trap != hook || user != Some("trap"),
            "{} was told to",
            self.0.mark
        );
    }
}

impl Policy for Member {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = &["chain.seen"];

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self(settings))
    }

    fn on_request(&self, request: &Request) -> Verdict {
        if request.in_dialog() {
            assert!(self.0.trap != "dialog", "{} was told to", self.0.mark);
            return Verdict::Next;
        }
        let mark = &self.0.mark;
        let seen = longer(request.header("X-Chain"), mark);
        request.set_header("X-Chain", &seen).unwrap();
        let shared = longer(request.var("chain.seen").as_deref(), mark).replace(',', "+");
        request.set_var("chain.seen", &shared).unwrap();
        let others = request.var("own").unwrap_or_else(|| "-".into());
        request.set_var("own", mark).unwrap();
        let told = format!("{mark} {shared} {others}");
        request.add_header("X-Variables", &told).unwrap();
        request
            .arm(Hooks::BRANCH | Hooks::REPLY | Hooks::FAILURE)
            .unwrap();
        self.goes_wrong_in("request", request);
        match &self.0.to {
            Some(to) => {
                let target = uri_via(request.request_uri().text(), to);
                Verdict::relay().to(target).record_route().into()
            }
            None => Verdict::Next,
        }
    }

    fn on_branch(&self, request: &Request, _: &Target) -> BranchVerdict {
        let seen = longer(request.header("X-Branch"), &self.0.mark);
        request.set_header("X-Branch", &seen).unwrap();
        self.goes_wrong_in("branch", request);
        BranchVerdict::Keep
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        let seen = longer(response.header("X-Replies"), &self.0.mark);
        response.set_header("X-Replies", &seen).unwrap();
        let own = response.var("own").unwrap_or_else(|| "-".into());
        let told = format!("{} {own}", self.0.mark);
        response.add_header("X-Own", &told).unwrap();
        let to = response.to().user();
        assert!(
            self.0.trap != "reply" || to != Some("trap"),
            "{} was told to",
            self.0.mark
        );
        ReplyVerdict::Forward
    }

    fn on_failure(&self, request: &Request, _: &Failure) -> Verdict {
        let seen = longer(request.header("X-Failures"), &self.0.mark);
        request.set_header("X-Failures", &seen).unwrap();
        self.goes_wrong_in("failure", request);
        match &self.0.instead {
            Some(instead) => {
                let target = uri_via(request.request_uri().text(), instead);
                Verdict::relay().to(target).record_route().into()
            }
            None => Verdict::Next,
        }
    }
}

sipbox_guest::export!(Member, hooks = [request, branch, reply, failure]);
