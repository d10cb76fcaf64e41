//! Limits how many calls a user, a source and a tenant have at a time. Each limit is a
//! lease: taken when the call begins, in one step over all workers, and given back when
//! it ends, however it ends. Who is let in goes to the next policy of the chain.

use std::collections::BTreeMap;

use sipbox_guest::dialogs::{self, CreateFlags};
use sipbox_guest::leases::{self, AllOutcome, Place, place};
use sipbox_guest::{Error, Policy, Request, Verdict, error, export, warn};

/// The settings; see the README.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls that a user of ours makes at a time.
    user: Option<UserLimit>,
    /// Calls that come from one address at a time.
    source: Option<Limit>,
    /// Calls of the tenant at a time.
    tenant: Option<u32>,
    /// What who has too many is answered.
    #[serde(default = "busy")]
    status: u16,
    #[serde(default)]
    reason: String,
    /// Seconds that a call may last.
    #[serde(default = "six_hours")]
    timeout: u32,
    /// OPTIONS to both sides, so many seconds apart; 0: none.
    #[serde(default)]
    ping: u32,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UserLimit {
    calls: u32,
    #[serde(default)]
    special: BTreeMap<String, u32>,
    /// Other names, and the user who has them.
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Of users that prove themselves by a name without a domain.
    domain: Option<String>,
    #[serde(default)]
    unproven: Unproven,
}

/// Whom a call counts for that no earlier policy of the chain has seen credentials of.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Unproven {
    /// The user that From names.
    #[default]
    From,
    /// The address that it comes from.
    Source,
    /// No user.
    Nobody,
}

impl UserLimit {
    /// Whom a call counts for, by whatever name he calls.
    fn user(&self, request: &Request) -> Option<String> {
        let name = match (request.authenticated_user(), &self.unproven) {
            (Some(proven), _) => match &self.domain {
                Some(domain) if !proven.contains('@') => format!("{proven}@{domain}"),
                _ => proven.to_owned(),
            },
            (None, Unproven::From) => request.from().aor()?,
            (None, Unproven::Source) => request.source().address.to_owned(),
            (None, Unproven::Nobody) => return None,
        };
        Some(self.aliases.get(&name).cloned().unwrap_or(name))
    }

    /// Calls count under the name that an alias stands for, and no other is looked up.
    fn check(&self) -> Result<(), String> {
        let is_alias = |name: &&String| self.aliases.contains_key(*name);
        if let Some(name) = self.aliases.values().find(is_alias) {
            return Err(format!("`aliases`: `{name}` is an alias itself"));
        }
        if let Some(name) = self.special.keys().find(is_alias) {
            return Err(format!("`special`: `{name}` is an alias"));
        }
        Ok(())
    }

    fn of(&self, user: &str) -> u32 {
        self.special.get(user).copied().unwrap_or(self.calls)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// For whoever is not among `special`.
    calls: u32,
    /// An address, and how many calls it has.
    #[serde(default)]
    special: BTreeMap<String, u32>,
}

impl Limit {
    fn of(&self, key: &str) -> u32 {
        self.special.get(key).copied().unwrap_or(self.calls)
    }
}

fn busy() -> u16 {
    486
}

fn six_hours() -> u32 {
    21_600
}

impl Policy for Limits {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        if !(400..700).contains(&settings.status) {
            return Err(format!("`status` is {}: 400 to 699", settings.status));
        }
        if settings.timeout == 0 {
            return Err("`timeout` is 0: every call would end at once".into());
        }
        if let Some(user) = &settings.user {
            user.check()?;
        }
        Ok(settings)
    }

    fn on_request(&self, request: &Request) -> Verdict {
        // A To tag makes no dialog: an INVITE that belongs to none that the host knows may
        // begin a call as well as any.
        if request.method() != "INVITE" || request.has_known_dialog() {
            return Verdict::Next;
        }
        match self.let_in(request) {
            Ok(None) => Verdict::Next,
            Ok(Some(Place { scope, key, .. })) => {
                warn!("{scope} {key} has as many calls as it may have");
                let reply = Verdict::reply(self.status);
                if self.reason.is_empty() {
                    reply.into()
                } else {
                    reply.reason(&self.reason).into()
                }
            }
            Err(reason) => {
                error!("calls cannot be counted: {reason:?}");
                Verdict::reply(500).into()
            }
        }
    }
}

impl Limits {
    /// Has the host follow the call, so that its places are its own until it ends.
    fn follow(&self) -> Result<(), Error> {
        let timeout = self.timeout.to_string();
        let timeout = ("timeout", timeout.as_str());
        if self.ping == 0 {
            dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT, &[timeout])?;
        } else {
            let pings = CreateFlags::OPTIONS_PING_CALLER | CreateFlags::OPTIONS_PING_CALLEE;
            let interval = self.ping.to_string();
            let interval = ("options-ping-interval", interval.as_str());
            dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT | pings, &[timeout, interval])?;
        }
        Ok(())
    }

    /// Takes a place of everything that is limited; what has none left.
    fn let_in(&self, request: &Request) -> Result<Option<Place>, Error> {
        if !request.in_dialog() && !request.has_created_dialog() {
            self.follow()?;
        }
        let places = self.places(request);
        if places.is_empty() {
            return Ok(None);
        }
        Ok(match leases::acquire_all(&places)? {
            AllOutcome::Granted => None,
            AllOutcome::Full(at) => places.into_iter().nth(at as usize),
        })
    }

    /// What the call takes a place of.
    fn places(&self, request: &Request) -> Vec<Place> {
        let mut places = Vec::with_capacity(3);
        if let Some(limit) = &self.user
            && let Some(user) = limit.user(request)
        {
            let calls = limit.of(&user);
            places.push(place("user", user, calls));
        }
        if let Some(limit) = &self.source {
            let source = request.source().address;
            places.push(place("source", source, limit.of(source)));
        }
        if let Some(limit) = self.tenant {
            places.push(place("tenant", "calls", limit));
        }
        places
    }
}

export!(Limits, hooks = [request]);

#[cfg(test)]
mod tests {
    use sipbox_guest::RouteOutcome;
    use sipbox_testkit::{Call, Kit, TestDialog, World};

    use super::*;

    const SETTINGS: &str = r#"{
        "user": { "calls": 1, "special": { "bob@example.com": 3 } },
        "source": { "calls": 2 },
        "tenant": 5,
        "timeout": 60,
        "ping": 30
    }"#;

    fn invite(from: &str) -> Call {
        Call::request("INVITE", "sip:carol@example.com").from(&format!("<sip:{from}>"))
    }

    #[test]
    fn a_call_that_is_let_in_has_a_dialog_and_a_lease_of_each_kind() {
        let kit = Kit::<Limits>::new(SETTINGS);
        let run = kit.on_request(invite("alice@example.com"));
        assert_eq!(run.verdict, Verdict::Next);
        let dialog = run.dialog.clone().expect("a dialog");
        assert!(dialog.wanted.contains(CreateFlags::BYE_ON_TIMEOUT));
        assert!(dialog.wanted.contains(CreateFlags::OPTIONS_PING_CALLEE));
        let held: Vec<_> = run.leases.iter().map(|held| held.scope.as_str()).collect();
        assert_eq!(held, ["user", "source", "tenant"]);
        assert_eq!(kit.world().leases("user", "alice@example.com"), 1);
    }

    #[test]
    fn each_limit_refuses_what_is_beyond_it() {
        let kit = Kit::<Limits>::new(SETTINGS);
        kit.on_request(invite("alice@example.com"));
        kit.on_request(invite("alice@example.com"))
            .assert_reply(486);
        // Another user from the same address, and then that is full as well.
        assert_eq!(
            kit.on_request(invite("bob@example.com")).verdict,
            Verdict::Next
        );
        kit.on_request(invite("bob@example.com")).assert_reply(486);
        let elsewhere =
            invite("bob@example.com").source("192.0.2.77", 5060, sipbox_guest::Transport::Udp);
        assert_eq!(kit.on_request(elsewhere).verdict, Verdict::Next);

        let full = World::new().leased("tenant", "calls", 5);
        Kit::<Limits>::new(SETTINGS)
            .in_world(full)
            .on_request(invite("alice@example.com"))
            .assert_reply(486);
    }

    #[test]
    fn the_authenticated_user_counts_not_the_one_in_from() {
        let kit = Kit::<Limits>::new(SETTINGS);
        let call = invite("somebody@example.com").authenticated_user("alice@example.com");
        kit.on_request(call);
        assert_eq!(kit.world().leases("user", "alice@example.com"), 1);
    }

    #[test]
    fn all_names_of_a_user_count_together() {
        let kit = Kit::<Limits>::new(
            r#"{ "user": { "calls": 2, "domain": "example.com", "special": { "boss@example.com": 3 },
                 "aliases": { "100@example.com": "alice@example.com", "chief@example.com": "boss@example.com" } } }"#,
        );
        kit.on_request(invite("alice@example.com"));
        kit.on_request(invite("100@example.com"));
        assert_eq!(kit.world().leases("user", "alice@example.com"), 2);
        // Whoever proves to be alice is, whatever From says.
        let proven = invite("x@example.org").authenticated_user("alice");
        kit.on_request(proven).assert_reply(486);
        for _ in 0..3 {
            let run = kit.on_request(invite("chief@example.com"));
            assert_eq!(run.verdict, Verdict::Next);
        }
        kit.on_request(invite("boss@example.com")).assert_reply(486);
    }

    #[test]
    fn who_has_proven_nothing_counts_as_the_settings_say() {
        let counted = |unproven: &str, call: Call| {
            let kit = Kit::<Limits>::new(format!(
                r#"{{ "user": {{ "calls": 2, "unproven": "{unproven}" }} }}"#
            ));
            let run = kit.on_request(call);
            let [held] = &run.leases[..] else {
                return None;
            };
            Some(held.key.clone())
        };
        let claimed = || invite("alice@example.com");
        let key = |text: &str| Some(text.to_owned());
        assert_eq!(counted("from", claimed()), key("alice@example.com"));
        assert_eq!(counted("source", claimed()), key("192.0.2.10"));
        assert_eq!(counted("nobody", claimed()), None);
        let proven = claimed().authenticated_user("bob");
        assert_eq!(counted("nobody", proven), key("bob"));
    }

    #[test]
    fn other_requests_are_not_counted() {
        let kit = Kit::<Limits>::new(SETTINGS);
        let register = Call::register("alice", "example.com", "<sip:alice@192.0.2.10>");
        assert!(kit.on_request(register).dialog.is_none());
        let within = || invite("alice@example.com").in_dialog(RouteOutcome::Loose);
        let known = within().dialog(TestDialog::confirmed());
        assert!(kit.on_request(known).leases.is_empty());
        // A tag that somebody has made up is no way past the limits.
        assert!(!kit.on_request(within()).leases.is_empty());
        kit.on_request(within()).assert_reply(486);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (settings, word) in [
            (r#"{"status": 200}"#, "status"),
            (r#"{"timeout": 0}"#, "timeout"),
            (r#"{"users": 1}"#, "users"),
            (
                r#"{"user": {"calls": 1, "aliases": {"a@x": "b@x", "b@x": "c@x"}}}"#,
                "`b@x` is an alias itself",
            ),
            (
                r#"{"user": {"calls": 1, "aliases": {"a@x": "b@x"}, "special": {"a@x": 2}}}"#,
                "`a@x` is an alias",
            ),
        ] {
            let refused = Kit::<Limits>::configured(settings).err();
            assert!(refused.is_some_and(|reason| reason.contains(word)));
        }
    }
}
