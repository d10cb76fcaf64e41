//! NAT policy: the head of a chain. It mends what comes from behind address translation,
//! and leaves every decision to the policies behind it.

mod settings;

use sipbox_guest::{
    Error, Hooks, Policy, ReplyVerdict, Request, Response, SourceClass, Verdict, nat, warn,
};

pub use settings::{Ping, SdpFix, Settings, Test};

use settings::Checked;

/// The parameter of our Record-Route, and the variable, by which the dialog of somebody
/// behind a translation is known.
const MARK: &str = "nat";
const YES: &str = "yes";

/// The policy.
#[derive(Debug)]
pub struct Nat {
    settings: Checked,
}

impl Policy for Nat {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = &[MARK];

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            settings: settings.check()?,
        })
    }

    fn on_request(&self, request: &Request) -> Verdict {
        if self.settings.force_rport {
            told("force-rport", nat::force_rport());
        }
        let method = request.method();
        if method == "CANCEL" {
            return Verdict::Next;
        }
        let natted = holds(request.classify_source(self.settings.tests));
        if method == "REGISTER" {
            if natted {
                self.register();
            }
            return Verdict::Next;
        }
        let mut marked = natted;
        if request.in_dialog() {
            if self.settings.preserve_uri {
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
        Verdict::Next
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        // The Contacts of a redirection are somebody else's.
        if response.status() < 300 && holds(response.classify_source(self.settings.reply_tests)) {
            self.mend();
        }
        ReplyVerdict::Forward
    }
}

impl Nat {
    /// The phone is reached at its source, and kept reachable there.
    fn register(&self) {
        let Some(marks) = self.settings.marks else {
            told("fix-nated-register", nat::fix_nated_register());
            return;
        };
        told("fix-nated-register", nat::fix_nated_register());
        told("set-binding-flags", nat::set_binding_flags(marks));
    }

    /// The other side reaches the sender at its source.
    fn mend(&self) {
        let Checked {
            contact_params,
            preserve_uri,
            sdp,
            ..
        } = &self.settings;
        told(
            "fix-nated-contact",
            nat::fix_nated_contact(contact_params, *preserve_uri),
        );
        if !sdp.is_empty() {
            told("fix-nated-sdp", nat::fix_nated_sdp(*sdp, "", ""));
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

sipbox_guest::export!(Nat, hooks = [request, reply]);
