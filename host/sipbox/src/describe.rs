//! Values in the words of a log line.

use std::fmt;

use sipbox_core::policy;

/// A verdict in a few words.
pub(crate) struct Verdict<'a>(pub(crate) &'a policy::Verdict);

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            policy::Verdict::Next => f.write_str("next"),
            policy::Verdict::Reply(reply) => write!(f, "reply {}", reply.status),
            policy::Verdict::ReplyStateless(reply) => write!(f, "reply-stateless {}", reply.status),
            policy::Verdict::Redirect(targets) => write!(f, "redirect to {}", targets.len()),
            policy::Verdict::Drop => f.write_str("drop"),
            policy::Verdict::ForwardStateless(_) => f.write_str("forward-stateless"),
            policy::Verdict::Relay(plan) if plan.groups.is_empty() => {
                f.write_str("relay along the route set")
            }
            policy::Verdict::Relay(plan) => {
                let targets: usize = plan.groups.iter().map(Vec::len).sum();
                write!(f, "relay to {targets} in {}", plan.groups.len())
            }
        }
    }
}
