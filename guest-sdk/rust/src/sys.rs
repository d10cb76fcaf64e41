//! The functions of the host.
//!
//! In a component they are the imports; everywhere else they go to the [`Host`]
//! that [`with_host`] put in place for the thread, so that a policy runs in an
//! ordinary unit test. Nothing above this module knows which of the two it is.

use crate::bindings::host::sipbox::policy::{
    auth, call, counters, dialogs, kv, leases, location, log, message, nat, types,
};

macro_rules! host_functions {
    ($(
        $(#[$meta:meta])*
        $module:ident.$function:ident => $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;
    )*) => {
        $(
            #[cfg(target_arch = "wasm32")]
            #[inline]
            pub(crate) fn $name($($argument: $kind),*) $(-> $result)? {
                $module::$function($($argument),*)
            }

            #[cfg(not(target_arch = "wasm32"))]
            pub(crate) fn $name($($argument: $kind),*) $(-> $result)? {
                native::current(|host| host.$name($($argument),*))
            }
        )*

        /// What a policy can ask, where there is no sandbox: implemented by the
        /// test kit.
        #[cfg(not(target_arch = "wasm32"))]
        pub trait Host {
            $(
                $(#[$meta])*
                fn $name(&mut self, $($argument: $kind),*) $(-> $result)?;
            )*
        }
    };
}

host_functions! {
    /// `message.view`
    message.view => view() -> message::MessageView;
    /// `message.bytes`
    message.bytes => bytes() -> Vec<u8>;
    /// `message.body`
    message.body => body() -> Vec<u8>;
    /// `message.apply`
    message.apply => apply(edits: &[types::Edit]) -> Result<(), types::Error>;
    /// `message.set-header`
    message.set_header => set_header(name: &str, value: &str) -> Result<(), types::Error>;
    /// `message.add-header`
    message.add_header => add_header(name: &str, value: &str) -> Result<(), types::Error>;
    /// `message.remove-header`
    message.remove_header => remove_header(name: &str) -> Result<(), types::Error>;
    /// `message.set-request-uri`
    message.set_request_uri => set_request_uri(uri: &str) -> Result<(), types::Error>;
    /// `message.set-body`
    message.set_body => set_body(body: &types::Body) -> Result<(), types::Error>;
    /// `call.var`
    call.var => var(name: &str) -> Option<String>;
    /// `call.set-var`
    call.set_var => set_var(name: &str, value: &str) -> Result<(), types::Error>;
    /// `call.check-route-param`
    call.check_route_param => check_route_param(pattern: &str) -> Result<bool, types::Error>;
    /// `call.record-route`
    call.record_route => record_route(params: &[(String, String)]) -> Result<(), types::Error>;
    /// `call.record-route-preset`
    call.record_route_preset => record_route_preset(outbound: &str, inbound: Option<&str>) -> Result<(), types::Error>;
    /// `call.add-route-param`
    call.add_route_param => add_route_param(name: &str, value: &str) -> Result<(), types::Error>;
    /// `call.classify-source`
    call.classify_source => classify_source(asked: call::SourceClass) -> call::SourceClass;
    /// `call.arm`
    call.arm => arm(hooks: call::Hooks) -> Result<(), types::Error>;
    /// `log.log`
    log.log => log(level: log::Level, text: &str);
    /// `auth.check`
    auth.check => check(realm: &auth::Realm) -> Result<auth::Outcome, types::Error>;
    /// `auth.challenge`
    auth.challenge => challenge(realm: &auth::Realm) -> Result<(), types::Error>;
    /// `location.lookup`
    location.lookup => lookup(aor: &str) -> Result<Vec<location::Binding>, types::Error>;
    /// `location.save`
    location.save => save(aor: &str, limits: &location::SaveLimits) -> Result<location::SaveOutcome, types::Error>;
    /// `location.remove`
    location.remove => remove(aor: &str) -> Result<u32, types::Error>;
    /// `nat.force-rport`
    nat.force_rport => force_rport() -> Result<(), types::Error>;
    /// `nat.fix-nated-contact`
    nat.fix_nated_contact => fix_nated_contact(params: &str, preserve_uri: bool) -> Result<(), types::Error>;
    /// `nat.restore-nated-ruri`
    nat.restore_nated_ruri => restore_nated_ruri() -> Result<bool, types::Error>;
    /// `nat.fix-nated-register`
    nat.fix_nated_register => fix_nated_register() -> Result<(), types::Error>;
    /// `nat.set-binding-flags`
    nat.set_binding_flags => set_binding_flags(marks: types::BindingFlags) -> Result<(), types::Error>;
    /// `nat.fix-nated-sdp`
    nat.fix_nated_sdp => fix_nated_sdp(fixes: nat::SdpFixes, address: &str, fields: &str) -> Result<(), types::Error>;
    /// `nat.add-rcv-param`
    nat.add_rcv_param => add_rcv_param(in_uri: bool) -> Result<(), types::Error>;
    /// `dialogs.create-dialog`
    dialogs.create_dialog => create_dialog(create: dialogs::CreateFlags, options: &types::Options) -> Result<bool, types::Error>;
    /// `dialogs.current`
    dialogs.current => current_dialog() -> Option<dialogs::Dialog>;
    /// `dialogs.store-dlg-value`
    dialogs.store_dlg_value => store_dlg_value(name: &str, value: &str) -> Result<(), types::Error>;
    /// `dialogs.fetch-dlg-value`
    dialogs.fetch_dlg_value => fetch_dlg_value(name: &str) -> Result<Option<String>, types::Error>;
    /// `dialogs.set-dlg-flag`
    dialogs.set_dlg_flag => set_dlg_flag(flag: &str) -> Result<(), types::Error>;
    /// `dialogs.reset-dlg-flag`
    dialogs.reset_dlg_flag => reset_dlg_flag(flag: &str) -> Result<(), types::Error>;
    /// `dialogs.is-dlg-flag-set`
    dialogs.is_dlg_flag_set => is_dlg_flag_set(flag: &str) -> Result<bool, types::Error>;
    /// `dialogs.test-and-set-dlg-flag`
    dialogs.test_and_set_dlg_flag => test_and_set_dlg_flag(flag: &str, value: bool) -> Result<bool, types::Error>;
    /// `dialogs.set-dlg-profile`
    dialogs.set_dlg_profile => set_dlg_profile(profile: &str, value: &str, clear_values: bool) -> Result<(), types::Error>;
    /// `dialogs.unset-dlg-profile`
    dialogs.unset_dlg_profile => unset_dlg_profile(profile: &str, value: &str) -> Result<(), types::Error>;
    /// `dialogs.is-in-profile`
    dialogs.is_in_profile => is_in_profile(profile: &str, value: &str) -> Result<bool, types::Error>;
    /// `dialogs.get-profile-size`
    dialogs.get_profile_size => get_profile_size(profile: &str, value: &str) -> Result<u32, types::Error>;
    /// `dialogs.set-dlg-timeout`
    dialogs.set_dlg_timeout => set_dlg_timeout(seconds: u32) -> Result<(), types::Error>;
    /// `dialogs.validate-dialog`
    dialogs.validate_dialog => validate_dialog() -> Result<dialogs::Validity, types::Error>;
    /// `dialogs.end-dialog`
    dialogs.end_dialog => end_dialog(extra: &[types::Header]) -> Result<(), types::Error>;
    /// `leases.acquire`
    leases.acquire => acquire(scope: &str, key: &str, limit: u32) -> Result<leases::Outcome, types::Error>;
    /// `leases.acquire-all`
    leases.acquire_all => acquire_all(places: &[leases::Place]) -> Result<leases::AllOutcome, types::Error>;
    /// `leases.release`
    leases.release => release(lease: u32) -> Result<(), types::Error>;
    /// `leases.held`
    leases.held => held(scope: &str, key: &str) -> Result<u32, types::Error>;
    /// `kv.get`
    kv.get => kv_get(key: &str) -> Result<Option<kv::Entry>, types::Error>;
    /// `kv.set`
    kv.set => kv_set(key: &str, value: &[u8], ttl: u32) -> Result<(), types::Error>;
    /// `kv.remove`
    kv.remove => kv_remove(key: &str) -> Result<bool, types::Error>;
    /// `kv.compare-and-set`
    kv.compare_and_set => kv_compare_and_set(key: &str, expected: Option<u32>, value: &[u8], ttl: u32) -> Result<kv::Swap, types::Error>;
    /// `counters.add`
    counters.add => counter_add(name: &str, key: &str, by: u32, window: u32) -> Result<u32, types::Error>;
    /// `counters.take`
    counters.take => counter_take(name: &str, key: &str, by: u32, window: u32, limit: u32) -> Result<counters::Outcome, types::Error>;
    /// `counters.read`
    counters.read => counter_read(name: &str, key: &str, window: u32) -> Result<u32, types::Error>;
    /// `counters.reset`
    counters.reset => counter_reset(name: &str, key: &str, window: u32) -> Result<(), types::Error>;
    /// `counters.sequence`
    counters.sequence => counter_sequence(name: &str) -> Result<u32, types::Error>;
}

#[cfg(not(target_arch = "wasm32"))]
pub use native::with_host;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::Host;

    thread_local! {
        static CURRENT: RefCell<Option<Rc<RefCell<dyn Host>>>> = const { RefCell::new(None) };
    }

    /// Takes the host away again, also when the policy panics.
    struct Restore(Option<Rc<RefCell<dyn Host>>>);

    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            CURRENT.with(|current| *current.borrow_mut() = before);
        }
    }

    /// Runs `work` with `host` answering the host calls of this thread.
    pub fn with_host<R>(host: Rc<RefCell<dyn Host>>, work: impl FnOnce() -> R) -> R {
        let before = CURRENT.with(|current| current.borrow_mut().replace(host));
        let _restore = Restore(before);
        work()
    }

    #[expect(
        clippy::panic,
        reason = "only a unit test gets here, and it forgot the test kit: there is nothing to answer with"
    )]
    pub(super) fn current<R>(ask: impl FnOnce(&mut dyn Host) -> R) -> R {
        let host = CURRENT.with(|current| current.borrow().clone());
        match host {
            Some(host) => ask(&mut *host.borrow_mut()),
            None => panic!("a host function was called outside `with_host`"),
        }
    }
}
