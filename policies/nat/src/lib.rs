//! NAT policy: the head of a chain. It mends what comes from behind address translation,
//! and leaves every decision to the policies behind it. The rules are a library, since
//! the residential policy has them built in.

use sipbox_guest::{Policy, ReplyVerdict, Request, Response, Verdict};
use sipbox_nat_rules::{NatRules, Settings};

/// The policy.
#[derive(Debug)]
pub struct Nat {
    rules: NatRules,
}

impl Policy for Nat {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = NatRules::VARIABLES;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            rules: settings.check()?,
        })
    }

    fn on_request(&self, request: &Request) -> Verdict {
        self.rules.on_request(request);
        Verdict::Next
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        self.rules.on_reply(response);
        ReplyVerdict::Forward
    }
}

sipbox_guest::export!(Nat, hooks = [request, reply]);
