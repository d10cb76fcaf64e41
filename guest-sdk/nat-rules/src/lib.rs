//! What a policy does about address translation: OpenSIPS's nathelper as rules. The head
//! of a chain runs them for the policies behind it (`policies/nat`); a policy that is a
//! chain by itself has them built in. Nothing is decided here.

mod settings;

use sipbox_guest::nat::{BindingFlags, SdpFixes};
use sipbox_guest::{Error, Hooks, Request, Response, SourceClass, nat, warn};

pub use settings::{Ping, SdpFix, Settings, Test};

/// The parameter of our Record-Route, and the variable, by which the dialog of somebody
/// behind a translation is known.
const MARK: &str = "nat";
const YES: &str = "yes";

/// The rules, by settings that have been checked ([`Settings::check`]).
#[derive(Debug)]
pub struct NatRules {
    tests: SourceClass,
    reply_tests: SourceClass,
    force_rport: bool,
    preserve_uri: bool,
    contact_params: String,
    /// `None`: bindings are not pinged.
    marks: Option<BindingFlags>,
    sdp: SdpFixes,
}

impl NatRules {
    /// What a policy with these rules declares: the variable `nat` is `yes` where the sender
    /// is behind a translation.
    pub const VARIABLES: &'static [&'static str] = &[MARK];

    /// What is done about a request, before anybody decides about it. What cannot be
    /// mended goes on as it is, with a line in the log.
    pub fn on_request(&self, request: &Request) {
        let method = request.method();
        let cancel = method == "CANCEL";
        if cancel && !self.force_rport {
            return;
        }
        let tests = if cancel {
            SourceClass::empty()
        } else {
            self.tests
        };
        let found = request.classify_source(tests | SourceClass::DIFF_PORT_SRC_VIA);
        // Where both are the same port, responses go there anyway.
        if self.force_rport && found.contains(SourceClass::DIFF_PORT_SRC_VIA) {
            told("force-rport", nat::force_rport());
        }
        if cancel {
            return;
        }
        let natted = holds(found & tests);
        if method == "REGISTER" {
            if natted {
                self.register();
            }
            return;
        }
        let mut marked = natted;
        if request.in_dialog() {
            if self.preserve_uri {
                told("restore-nated-ruri", nat::restore_nated_ruri());
            }
            marked |= request.route_param(MARK) == Some(YES);
        }
        if natted {
            self.mend();
            told("add-route-param", request.add_route_param(MARK, YES));
        }
        if marked {
            told("set-var", request.set_var(MARK, YES));
        }
        if answers_with_contact(method) {
            told("arm", request.arm(Hooks::REPLY));
        }
    }

    /// What is done about a response: the Contacts of a redirection are somebody else's.
    pub fn on_reply(&self, response: &Response) {
        if response.status() < 300 && holds(response.classify_source(self.reply_tests)) {
            self.mend();
        }
    }

    /// The phone is reached at its source, and kept reachable there.
    fn register(&self) {
        told("fix-nated-register", nat::fix_nated_register());
        if let Some(marks) = self.marks {
            told("set-binding-flags", nat::set_binding_flags(marks));
        }
    }

    /// The other side reaches the sender at its source.
    fn mend(&self) {
        told(
            "fix-nated-contact",
            nat::fix_nated_contact(&self.contact_params, self.preserve_uri),
        );
        if !self.sdp.is_empty() {
            told("fix-nated-sdp", nat::fix_nated_sdp(self.sdp, "", ""));
        }
    }
}

fn holds(facts: SourceClass) -> bool {
    !facts.is_empty()
}

/// Whether the Contact of a response to this method is where the dialog goes on (RFC 3261
/// section 12.1.2, 12.2.1.2, RFC 3311, RFC 6665, RFC 3515).
fn answers_with_contact(method: &str) -> bool {
    matches!(
        method,
        "INVITE" | "UPDATE" | "SUBSCRIBE" | "NOTIFY" | "REFER"
    )
}

/// What cannot be mended goes on as it is.
fn told<T>(what: &str, outcome: Result<T, Error>) {
    if let Err(reason) = outcome {
        warn!("{what}: {reason}");
    }
}
