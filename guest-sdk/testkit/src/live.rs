//! Answers host calls from a [`Call`] and a [`World`], and keeps what the policy
//! staged.

use std::collections::BTreeMap;

use sipbox_guest::auth::Outcome;
use sipbox_guest::bindings::host::sipbox::policy::auth::Realm;
use sipbox_guest::bindings::host::sipbox::policy::message::MessageView;
use sipbox_guest::bindings::host::sipbox::policy::types::{Header, Options};
use sipbox_guest::counters;
use sipbox_guest::dialogs::{CreateFlags, Dialog, Validity};
use sipbox_guest::kv;
use sipbox_guest::leases;
use sipbox_guest::location::{Binding, SaveLimits, SaveOutcome};
use sipbox_guest::log::Level;
use sipbox_guest::nat::{BindingFlags, SdpFixes};
use sipbox_guest::sys::Host;
use sipbox_guest::{Body, Edit, Error, Hooks, SourceClass};

use crate::call::Call;
use crate::checks::{check_edit, check_options, check_route_param, check_uri, edit_header};
use crate::dialogs::TestDialog;
use crate::nat::{self, NatState};
use crate::run::{Effect, RecordRoute};
use crate::view::{bytes, view};
use crate::world::World;

/// The hook that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Route,
    Request,
    Branch,
    Reply,
    Failure,
    Dialog,
}

pub(crate) struct Live {
    pub(crate) hook: Hook,
    pub(crate) call: Call,
    pub(crate) world: World,
    pub(crate) edits: Vec<Edit>,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) armed: Hooks,
    pub(crate) effects: Vec<Effect>,
    pub(crate) vars: BTreeMap<String, String>,
    pub(crate) route_params: Vec<(String, String)>,
    pub(crate) record_route: Option<RecordRoute>,
    pub(crate) authenticated_user: Option<String>,
    pub(crate) nat: NatState,
    pub(crate) dialog: Option<TestDialog>,
}

impl Live {
    pub(crate) fn new(hook: Hook, call: Call, world: World) -> Self {
        Self {
            hook,
            vars: call.vars.iter().cloned().collect(),
            authenticated_user: call.authenticated_user.clone(),
            nat: call.nat.clone(),
            dialog: call.dialog.clone(),
            call,
            world,
            edits: Vec::new(),
            logs: Vec::new(),
            armed: Hooks::empty(),
            effects: Vec::new(),
            route_params: Vec::new(),
            record_route: None,
        }
    }

    pub(crate) fn only_in(&self, hooks: &[Hook], what: &str) -> Result<(), Error> {
        if hooks.contains(&self.hook) {
            Ok(())
        } else {
            Err(Error::OutOfPlace(
                format!("{what} in on-{:?}", self.hook).to_lowercase(),
            ))
        }
    }
}

/// Where a Record-Route can be asked for, and its parameters.
const RECORDING: [Hook; 4] = [Hook::Route, Hook::Request, Hook::Branch, Hook::Failure];

impl Live {
    fn may_record(&self, what: &str) -> Result<(), Error> {
        self.only_in(&RECORDING, what)?;
        if self.record_route.is_some() {
            let again = format!("{what} a second time in one call");
            return Err(Error::OutOfPlace(again));
        }
        Ok(())
    }
}

impl Host for Live {
    fn view(&mut self) -> MessageView {
        view(&self.call)
    }

    fn bytes(&mut self) -> Vec<u8> {
        bytes(&self.call)
    }

    fn body(&mut self) -> Vec<u8> {
        self.call.body.clone()
    }

    fn apply(&mut self, edits: &[Edit]) -> Result<(), Error> {
        for edit in edits {
            if matches!(edit, Edit::SetRequestUri(_)) {
                self.only_in(
                    &[Hook::Request, Hook::Branch, Hook::Failure],
                    "set-request-uri",
                )?;
            }
            check_edit(edit)?;
        }
        self.edits.extend(edits.iter().cloned());
        Ok(())
    }

    fn set_header(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.apply(&[Edit::SetHeader(edit_header(name, value))])
    }

    fn add_header(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.apply(&[Edit::AddHeader(edit_header(name, value))])
    }

    fn remove_header(&mut self, name: &str) -> Result<(), Error> {
        self.apply(&[Edit::RemoveHeader(name.into())])
    }

    fn set_request_uri(&mut self, uri: &str) -> Result<(), Error> {
        self.apply(&[Edit::SetRequestUri(uri.into())])
    }

    fn set_body(&mut self, body: &Body) -> Result<(), Error> {
        self.apply(&[Edit::SetBody(body.clone())])
    }

    fn var(&mut self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn set_var(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.vars.insert(name.into(), value.into());
        Ok(())
    }

    fn check_route_param(&mut self, pattern: &str) -> Result<bool, Error> {
        let compiled = regex::Regex::new(pattern)
            .map_err(|_| Error::Malformed(format!("`{pattern}` is no regular expression")))?;
        Ok(compiled.is_match(&self.call.route_params))
    }

    fn record_route(&mut self, params: &[(String, String)]) -> Result<(), Error> {
        self.may_record("record-route")?;
        for (name, value) in params {
            check_route_param(name, value)?;
        }
        self.route_params.extend(params.iter().cloned());
        self.record_route = Some(RecordRoute::default());
        Ok(())
    }

    fn record_route_preset(&mut self, outbound: &str, inbound: Option<&str>) -> Result<(), Error> {
        self.may_record("record-route-preset")?;
        for text in [Some(outbound), inbound].into_iter().flatten() {
            check_uri(&format!("sip:{text}"))?;
        }
        self.record_route = Some(RecordRoute {
            outbound: outbound.to_owned(),
            inbound: inbound.map(str::to_owned),
        });
        Ok(())
    }

    fn add_route_param(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.only_in(&RECORDING, "add-route-param")?;
        check_route_param(name, value)?;
        self.route_params.push((name.into(), value.into()));
        Ok(())
    }

    fn classify_source(&mut self, asked: SourceClass) -> SourceClass {
        match self.call.source_class {
            Some(class) => class & asked,
            None => nat::classify(&self.call, asked),
        }
    }

    fn arm(&mut self, hooks: Hooks) -> Result<(), Error> {
        self.only_in(&[Hook::Route, Hook::Request, Hook::Failure], "arm")?;
        self.armed |= hooks;
        Ok(())
    }

    fn log(&mut self, level: Level, text: &str) {
        self.logs.push((level, text.into()));
    }

    fn check(&mut self, realm: &Realm) -> Result<Outcome, Error> {
        check_options(&realm.options, &[("uri-check", &["strict", "loose"])])?;
        if let Some(error) = &self.world.auth_failure {
            return Err(error.clone());
        }
        let named = self.call.credentials.iter().find(|credentials| {
            credentials.proxy == realm.proxy && credentials.realm == realm.name
        });
        let Some(credentials) = named else {
            return Ok(Outcome::None);
        };
        if self.world.throttled.contains(&credentials.user) {
            return Ok(Outcome::Throttled);
        }
        if credentials.stale {
            return Ok(Outcome::Stale);
        }
        let account = (credentials.realm.clone(), credentials.user.clone());
        if self.world.accounts.get(&account) != Some(&credentials.password) {
            return Ok(Outcome::Refused);
        }
        self.authenticated_user = Some(credentials.user.clone());
        Ok(Outcome::Authenticated(credentials.user.clone()))
    }

    fn challenge(&mut self, realm: &Realm) -> Result<(), Error> {
        self.only_in(&[Hook::Request, Hook::Failure], "challenge")?;
        check_options(&realm.options, &[("uri-check", &["strict", "loose"])])?;
        self.effects.push(Effect::Challenge {
            realm: realm.name.clone(),
            proxy: realm.proxy,
            algorithms: realm.algorithms.clone(),
        });
        Ok(())
    }

    fn lookup(&mut self, aor: &str) -> Result<Vec<Binding>, Error> {
        self.look_up(aor)
    }

    fn save(&mut self, aor: &str, limits: &SaveLimits) -> Result<SaveOutcome, Error> {
        self.save_bindings(aor, limits)
    }

    fn remove(&mut self, aor: &str) -> Result<u32, Error> {
        self.remove_bindings(aor)
    }

    fn force_rport(&mut self) -> Result<(), Error> {
        self.only_in(&[Hook::Request], "force-rport")?;
        self.nat.force_rport = true;
        Ok(())
    }

    fn fix_nated_contact(&mut self, params: &str, preserve_uri: bool) -> Result<(), Error> {
        self.mend_contact(params, preserve_uri)
    }

    fn restore_nated_ruri(&mut self) -> Result<bool, Error> {
        self.restore_uri()
    }

    fn fix_nated_register(&mut self) -> Result<(), Error> {
        self.of_register("fix-nated-register")?;
        self.nat.register = true;
        self.nat.flags |= BindingFlags::NATTED;
        Ok(())
    }

    fn set_binding_flags(&mut self, marks: BindingFlags) -> Result<(), Error> {
        self.of_register("set-binding-flags")?;
        self.nat.flags |= marks;
        Ok(())
    }

    fn fix_nated_sdp(&mut self, fixes: SdpFixes, address: &str, fields: &str) -> Result<(), Error> {
        self.mend_sdp(fixes, address, fields)
    }

    fn add_rcv_param(&mut self, in_uri: bool) -> Result<(), Error> {
        self.only_in(&[Hook::Request], "add-rcv-param")?;
        self.mend_contacts(|value, (source, transport)| {
            sipbox_sip::nat::add_received(value, source, transport, in_uri)
        })
    }

    fn create_dialog(&mut self, create: CreateFlags, options: &Options) -> Result<bool, Error> {
        self.dialog_create(create, options)
    }

    fn current_dialog(&mut self) -> Option<Dialog> {
        self.dialog.as_ref().map(|dialog| dialog.facts.clone())
    }

    fn store_dlg_value(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.dialog_var(name, value)
    }

    fn fetch_dlg_value(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.dialog_value(name)
    }

    fn set_dlg_flag(&mut self, flag: &str) -> Result<(), Error> {
        self.dialog_flag(flag, true).map(|_| ())
    }

    fn reset_dlg_flag(&mut self, flag: &str) -> Result<(), Error> {
        self.dialog_flag(flag, false).map(|_| ())
    }

    fn is_dlg_flag_set(&mut self, flag: &str) -> Result<bool, Error> {
        self.dialog_has_flag(flag)
    }

    fn test_and_set_dlg_flag(&mut self, flag: &str, value: bool) -> Result<bool, Error> {
        Ok(self.dialog_flag(flag, value)? != value)
    }

    fn set_dlg_profile(&mut self, profile: &str, value: &str, clear: bool) -> Result<(), Error> {
        self.dialog_join(profile, value, clear)
    }

    fn unset_dlg_profile(&mut self, profile: &str, value: &str) -> Result<(), Error> {
        self.dialog_leave(profile, value)
    }

    fn is_in_profile(&mut self, profile: &str, value: &str) -> Result<bool, Error> {
        self.dialog_is_in(profile, value)
    }

    fn get_profile_size(&mut self, profile: &str, value: &str) -> Result<u32, Error> {
        let key = (profile.to_owned(), value.to_owned());
        Ok(self.world.profiles.get(&key).copied().unwrap_or(0))
    }

    fn set_dlg_timeout(&mut self, seconds: u32) -> Result<(), Error> {
        self.dialog_timeout(seconds)
    }

    fn validate_dialog(&mut self) -> Result<Validity, Error> {
        self.dialog_validity()
    }

    fn end_dialog(&mut self, extra: &[Header]) -> Result<(), Error> {
        self.dialog_end(extra)
    }

    fn acquire(&mut self, scope: &str, key: &str, limit: u32) -> Result<leases::Outcome, Error> {
        self.lease(scope, key, limit)
    }

    fn acquire_all(&mut self, places: &[leases::Place]) -> Result<leases::AllOutcome, Error> {
        self.lease_all(places)
    }

    fn release(&mut self, lease: u32) -> Result<(), Error> {
        self.lease_ends(lease)
    }

    fn held(&mut self, scope: &str, key: &str) -> Result<u32, Error> {
        Ok(self.world.leases(scope, key))
    }

    fn kv_get(&mut self, key: &str) -> Result<Option<kv::Entry>, Error> {
        self.value_of(key)
    }

    fn kv_set(&mut self, key: &str, value: &[u8], ttl: u32) -> Result<(), Error> {
        self.stage_value(key, Some(value), ttl).map(|_| ())
    }

    fn kv_remove(&mut self, key: &str) -> Result<bool, Error> {
        self.remove_value(key)
    }

    fn kv_compare_and_set(
        &mut self,
        key: &str,
        expected: Option<u32>,
        value: &[u8],
        ttl: u32,
    ) -> Result<kv::Swap, Error> {
        self.swap_value(key, expected, value, ttl)
    }

    fn counter_add(&mut self, name: &str, key: &str, by: u32, window: u32) -> Result<u32, Error> {
        self.add_to_counter(name, key, by, window)
    }

    fn counter_take(
        &mut self,
        name: &str,
        key: &str,
        by: u32,
        window: u32,
        limit: u32,
    ) -> Result<counters::Outcome, Error> {
        self.take_from_counter(name, key, by, window, limit)
    }

    fn counter_read(&mut self, name: &str, key: &str, window: u32) -> Result<u32, Error> {
        self.add_to_counter(name, key, 0, window)
    }

    fn counter_reset(&mut self, name: &str, key: &str, window: u32) -> Result<(), Error> {
        self.reset_counter(name, key, window)
    }

    fn counter_sequence(&mut self, name: &str) -> Result<u32, Error> {
        self.next_of_sequence(name)
    }
}
