//! The interface `dialogs`.

use sipbox_core::dialog::{Side, State, Validity, Wanted};
use sipbox_core::policy::{CallError, DialogOp, DialogView, Effect, Hook};
use sipbox_sip::Method;

use crate::bindings::wit::dialogs as wit;
use crate::bindings::wit::types::{Error, Header, Options};
use crate::cx::CallCx;
use crate::edit;

/// Where a dialog can be asked about and changed.
const ANYWHERE: [Hook; 4] = [Hook::Request, Hook::Branch, Hook::Reply, Hook::Failure];

/// Variables, flags and memberships that a dialog can have, of each kind.
const MOST: usize = 64;
/// The longest name, of a variable, a flag, a profile or a scope, and the longest value of
/// a profile or key of a lease.
const LONGEST: usize = 255;

impl wit::Host for CallCx {
    fn create_dialog(
        &mut self,
        create: wit::CreateFlags,
        options: Options,
    ) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        self.stage(0)?;
        Ok(self.create(create, &options).map_err(Error::from))
    }

    fn current(&mut self) -> wasmtime::Result<Option<wit::Dialog>> {
        self.enter()?;
        Ok(self.dialog_now().map(|dialog| wit::Dialog {
            id: dialog.id,
            state: match dialog.state {
                State::Unconfirmed => wit::DialogState::Unconfirmed,
                State::Early => wit::DialogState::Early,
                State::ConfirmedNoAck => wit::DialogState::ConfirmedNoAck,
                State::Confirmed => wit::DialogState::Confirmed,
                State::Deleted => wit::DialogState::Deleted,
            },
            sender: match dialog.from {
                None => wit::Party::Unknown,
                Some(Side::Caller) => wit::Party::Caller,
                Some(Side::Callee) => wit::Party::Callee,
            },
            lifetime: dialog.lasted,
            timeout: dialog.left,
        }))
    }

    fn store_dlg_value(
        &mut self,
        name: String,
        value: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(name.len() + value.len())?;
        let checked = check_name("variable", &name);
        Ok(
            self.change(checked, "store-dlg-value", || DialogOp::SetVar {
                name,
                value,
            }),
        )
    }

    fn fetch_dlg_value(&mut self, name: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        self.enter()?;
        let dialog = self.dialog("fetch-dlg-value");
        Ok(dialog.map_err(Error::from).map(|dialog| {
            let var = dialog.vars.into_iter().find(|(known, _)| *known == name);
            var.map(|(_, value)| value)
        }))
    }

    fn set_dlg_flag(&mut self, flag: String) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.flag("set-dlg-flag", flag, true)
    }

    fn reset_dlg_flag(&mut self, flag: String) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.flag("reset-dlg-flag", flag, false)
    }

    fn is_dlg_flag_set(&mut self, flag: String) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        let dialog = self.dialog("is-dlg-flag-set");
        Ok(dialog
            .map(|dialog| dialog.flags.contains(&flag))
            .map_err(Error::from))
    }

    fn test_and_set_dlg_flag(
        &mut self,
        flag: String,
        value: bool,
    ) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        self.stage(flag.len())?;
        Ok(self.flip(flag, value).map_err(Error::from))
    }

    fn set_dlg_profile(
        &mut self,
        profile: String,
        value: String,
        clear_values: bool,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(profile.len() + value.len())?;
        let checked = check_name("profile", &profile).and_then(|()| check_key(&value));
        Ok(self.change(checked, "set-dlg-profile", || DialogOp::Join {
            profile,
            value,
            clear: clear_values,
        }))
    }

    fn unset_dlg_profile(
        &mut self,
        profile: String,
        value: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(profile.len() + value.len())?;
        Ok(
            self.change(Ok(()), "unset-dlg-profile", || DialogOp::Leave {
                profile,
                value,
            }),
        )
    }

    fn is_in_profile(
        &mut self,
        profile: String,
        value: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        let dialog = self.dialog("is-in-profile");
        Ok(dialog
            .map(|dialog| dialog.is_in(&profile, &value))
            .map_err(Error::from))
    }

    fn get_profile_size(
        &mut self,
        profile: String,
        value: String,
    ) -> wasmtime::Result<Result<u32, Error>> {
        self.enter()?;
        let (call, capabilities) = (&self.call, &self.call.capabilities);
        Ok(capabilities
            .profile_size(call, &profile, &value)
            .map_err(Error::from))
    }

    fn set_dlg_timeout(&mut self, seconds: u32) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(0)?;
        Ok(self.change(Ok(()), "set-dlg-timeout", || DialogOp::Timeout(seconds)))
    }

    fn validate_dialog(&mut self) -> wasmtime::Result<Result<wit::Validity, Error>> {
        self.enter()?;
        let valid = self
            .only_in("validate-dialog", &[Hook::Request])
            .and_then(|()| self.call.capabilities.validate_dialog(&self.call));
        Ok(valid.map_err(Error::from).map(|validity| match validity {
            Validity::Valid => wit::Validity::Valid,
            Validity::CSeq => wit::Validity::Cseq,
            Validity::RemoteTarget => wit::Validity::RemoteTarget,
            Validity::RouteSet => wit::Validity::RouteSet,
            Validity::Other => wit::Validity::Other,
        }))
    }

    fn end_dialog(&mut self, extra: Vec<Header>) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        let bytes = extra
            .iter()
            .map(|field| field.name.len() + field.value.len());
        self.stage(bytes.sum())?;
        let checked = extra
            .iter()
            .try_for_each(|field| edit::check_field(&field.name, &field.value));
        Ok(self.change(checked, "end-dialog", || {
            let fields = extra.into_iter().map(|field| (field.name, field.value));
            DialogOp::End(fields.collect())
        }))
    }
}

impl CallCx {
    /// The dialog as this call has changed it so far.
    fn dialog_now(&self) -> Option<DialogView> {
        let call = &self.call;
        let ops = call.effects.iter().filter_map(|effect| match effect {
            Effect::Dialog(op) => Some(op),
            _ => None,
        });
        let mut dialog = call.capabilities.dialog(call);
        for op in ops {
            match (op, &mut dialog) {
                (DialogOp::Create(wanted), None) => dialog = Some(fresh(*wanted)),
                (op, Some(dialog)) => dialog.staged(op),
                (_, None) => {}
            }
        }
        dialog
    }

    fn dialog(&self, what: &str) -> Result<DialogView, CallError> {
        self.only_in(what, &[ANYWHERE.as_slice(), &[Hook::Dialog]].concat())?;
        self.dialog_now()
            .ok_or_else(|| CallError::OutOfPlace(format!("{what} without a dialog")))
    }

    fn change(
        &mut self,
        checked: Result<(), CallError>,
        what: &str,
        op: impl FnOnce() -> DialogOp,
    ) -> Result<(), Error> {
        self.staged(checked, what, op).map_err(Error::from)
    }

    fn staged(
        &mut self,
        checked: Result<(), CallError>,
        what: &str,
        op: impl FnOnce() -> DialogOp,
    ) -> Result<(), CallError> {
        checked?;
        self.only_in(what, &ANYWHERE)?;
        let mut dialog = self
            .dialog_now()
            .ok_or_else(|| CallError::OutOfPlace(format!("{what} without a dialog")))?;
        let op = op();
        dialog.staged(&op);
        for (kind, count) in [
            ("variables", dialog.vars.len()),
            ("flags", dialog.flags.len()),
            ("profiles", dialog.profiles.len()),
        ] {
            if count > MOST {
                return Err(CallError::Limit(format!("{MOST} {kind} of a dialog")));
            }
        }
        self.call.effects.push(Effect::Dialog(op));
        Ok(())
    }

    fn flag(&mut self, what: &str, name: String, on: bool) -> wasmtime::Result<Result<(), Error>> {
        self.stage(name.len())?;
        let checked = check_flag(&name);
        Ok(self.change(checked, what, || DialogOp::SetFlag { name, on }))
    }

    fn flip(&mut self, flag: String, value: bool) -> Result<bool, CallError> {
        check_flag(&flag)?;
        self.only_in("test-and-set-dlg-flag", &ANYWHERE)?;
        let call = &self.call;
        if call.capabilities.dialog(call).is_some() {
            return Ok(call.capabilities.test_and_set(call, &flag, value)? != value);
        }
        // Nobody else knows the dialog yet.
        let was = self.dialog("test-and-set-dlg-flag")?.flags.contains(&flag);
        let op = || DialogOp::SetFlag {
            name: flag,
            on: value,
        };
        self.staged(Ok(()), "test-and-set-dlg-flag", op)?;
        Ok(was != value)
    }

    fn create(&mut self, create: wit::CreateFlags, options: &Options) -> Result<bool, CallError> {
        self.only_in("create-dialog", &[Hook::Request])?;
        if self.request_method() != Method::Invite || self.call.facts.in_dialog {
            return Err(CallError::OutOfPlace(
                "create-dialog of a request that begins no call".to_owned(),
            ));
        }
        let mut wanted = Wanted {
            bye_on_timeout: create.contains(wit::CreateFlags::BYE_ON_TIMEOUT),
            ping_caller: create.contains(wit::CreateFlags::OPTIONS_PING_CALLER),
            ping_callee: create.contains(wit::CreateFlags::OPTIONS_PING_CALLEE),
            end_on_race_condition: create.contains(wit::CreateFlags::END_ON_RACE_CONDITION),
            ..Wanted::default()
        };
        for (name, value) in options {
            let slot = match name.as_str() {
                "timeout" => &mut wanted.timeout,
                "delete-delay" => &mut wanted.delete_delay,
                "options-ping-interval" => &mut wanted.ping_interval,
                _ => return Err(CallError::UnknownOption(edit::shown(name))),
            };
            let seconds = value.parse().map_err(|_| {
                let (name, value) = (edit::shown(name), edit::shown(value));
                CallError::Malformed(format!("{name}=`{value}`: seconds are wanted"))
            })?;
            *slot = Some(seconds);
        }
        if self.dialog_now().is_some() {
            return Ok(false);
        }
        self.call
            .effects
            .push(Effect::Dialog(DialogOp::Create(wanted)));
        Ok(true)
    }
}

/// A dialog that its verdict will begin.
fn fresh(wanted: Wanted) -> DialogView {
    DialogView {
        id: String::new(),
        state: State::Unconfirmed,
        from: Some(Side::Caller),
        lasted: 0,
        left: wanted.timeout.unwrap_or_default(),
        vars: Vec::new(),
        flags: Vec::new(),
        profiles: Vec::new(),
    }
}

/// A name that can stand in a list of names.
fn check_flag(name: &str) -> Result<(), CallError> {
    if name.len() <= LONGEST && sipbox_sip::lex::is_token(name.as_bytes()) {
        return Ok(());
    }
    Err(CallError::Malformed(format!(
        "flag `{}`",
        edit::shown(name)
    )))
}

pub(crate) fn check_name(what: &str, name: &str) -> Result<(), CallError> {
    // A colon in front marks what the host keeps in the table itself.
    let fits = !name.is_empty() && name.len() <= LONGEST && !name.starts_with(':');
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(CallError::Malformed(format!(
        "{what} `{}`",
        edit::shown(name)
    )))
}

pub(crate) fn check_key(key: &str) -> Result<(), CallError> {
    if key.len() <= LONGEST && !key.chars().any(char::is_control) {
        return Ok(());
    }
    Err(CallError::Malformed(format!("`{}`", edit::shown(key))))
}
