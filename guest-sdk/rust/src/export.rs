//! `export!`: what turns a [`Policy`](crate::Policy) into a component.

/// Exports a policy from its crate.
///
/// ```
/// # use sipbox_guest::{NoSettings, Policy};
/// struct MyPolicy;
/// # impl Policy for MyPolicy {
/// #     type Settings = NoSettings;
/// #     fn configure(_: NoSettings) -> Result<Self, String> { Ok(Self) }
/// # }
///
/// sipbox_guest::export!(MyPolicy, hooks = [request, reply]);
/// # fn main() {}
/// ```
///
/// A hook that a policy left at its default costs nothing at run time, since
/// later hooks are called only where they were asked for, so the list may be left
/// out: `export!(MyPolicy)` exports all. A list makes the component smaller and
/// lets an operator see what it can do; a hook that is implemented but not listed
/// is never called. Name, version and summary of the policy are those of its
/// package.
///
/// The expansion has the `unsafe` that a WebAssembly export needs, in components
/// only: natively it checks its arguments and exports nothing.
#[macro_export]
macro_rules! export {
    ($policy:ident) => {
        $crate::export!($policy, hooks = [route, request, branch, reply, failure, dialog]);
    };
    ($policy:ident, hooks = [$($hook:ident),* $(,)?]) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&str) -> ::std::result::Result<$policy, ::std::string::String> =
            $crate::configure::<$policy>;
        $($crate::__export_hook!(named $hook);)*

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::export::Slot<$policy> =
                    const { $crate::export::Slot::new() };
            }

            struct Component;

            impl $crate::bindings::lifecycle::exports::sipbox::policy::lifecycle::Guest
                for Component
            {
                fn configure(
                    settings: ::std::string::String,
                ) -> ::std::result::Result<
                    $crate::bindings::lifecycle::exports::sipbox::policy::lifecycle::Description,
                    ::std::string::String,
                > {
                    INSTANCE.with(|slot| slot.configure(&settings))?;
                    Ok($crate::bindings::lifecycle::exports::sipbox::policy::lifecycle::Description {
                        name: ::std::env!("CARGO_PKG_NAME").into(),
                        version: ::std::env!("CARGO_PKG_VERSION").into(),
                        summary: ::std::env!("CARGO_PKG_DESCRIPTION").into(),
                        variables: $crate::export::variables::<$policy>(),
                    })
                }
            }

            $crate::bindings::lifecycle::export_lifecycle!(
                Component with_types_in $crate::bindings::lifecycle
            );
            $($crate::__export_hook!($hook, Component, INSTANCE);)*
        };
    };
}

/// One arm for each hook.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (named route) => {};
    (named request) => {};
    (named branch) => {};
    (named reply) => {};
    (named failure) => {};
    (route, $component:ident, $instance:ident) => {
        impl $crate::bindings::route::exports::sipbox::policy::route_hook::Guest for $component {
            fn on_route() {
                $instance.with($crate::export::Slot::on_route)
            }
        }
        $crate::bindings::route::export_route!($component with_types_in $crate::bindings::route);
    };
    (named dialog) => {};
    (request, $component:ident, $instance:ident) => {
        impl $crate::bindings::request::exports::sipbox::policy::request_hook::Guest for $component {
            fn on_request() -> $crate::Verdict {
                $instance.with($crate::export::Slot::on_request)
            }
        }
        $crate::bindings::request::export_request!(
            $component with_types_in $crate::bindings::request
        );
    };
    (branch, $component:ident, $instance:ident) => {
        impl $crate::bindings::branch::exports::sipbox::policy::branch_hook::Guest for $component {
            fn on_branch(target: $crate::Target) -> $crate::BranchVerdict {
                $instance.with(|slot| slot.on_branch(&target))
            }
        }
        $crate::bindings::branch::export_branch!($component with_types_in $crate::bindings::branch);
    };
    (reply, $component:ident, $instance:ident) => {
        impl $crate::bindings::reply::exports::sipbox::policy::reply_hook::Guest for $component {
            fn on_reply() -> $crate::ReplyVerdict {
                $instance.with($crate::export::Slot::on_reply)
            }
        }
        $crate::bindings::reply::export_reply!($component with_types_in $crate::bindings::reply);
    };
    (failure, $component:ident, $instance:ident) => {
        impl $crate::bindings::failure::exports::sipbox::policy::failure_hook::Guest for $component {
            fn on_failure(failure: $crate::Failure) -> $crate::Verdict {
                $instance.with(|slot| slot.on_failure(&failure))
            }
        }
        $crate::bindings::failure::export_failure!(
            $component with_types_in $crate::bindings::failure
        );
    };
    (dialog, $component:ident, $instance:ident) => {
        impl $crate::bindings::dialog::exports::sipbox::policy::dialog_hook::Guest for $component {
            fn on_dialog(event: $crate::DialogEvent) {
                $instance.with(|slot| slot.on_dialog(&event));
            }
        }
        $crate::bindings::dialog::export_dialog!($component with_types_in $crate::bindings::dialog);
    };
}

use std::cell::OnceCell;

use crate::message::{Request, Response};
use crate::policy::{BranchVerdict, DialogEvent, Failure, Policy, ReplyVerdict};
use crate::verdict::{Target, Verdict};

/// What a policy declares.
#[doc(hidden)]
#[must_use]
pub fn variables<P: Policy>() -> Vec<String> {
    P::VARIABLES.iter().map(|name| (*name).to_owned()).collect()
}

/// Makes a panic say its text and line in the operator's log before it ends the call. Natively it goes
/// where the test runner wants it.
fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("a value that is no text");
        match panic.location() {
            Some(at) => crate::error!("panicked at {}:{}: {text}", at.file(), at.line()),
            None => crate::error!("panicked: {text}"),
        }
    }));
}

/// Holds the policy of an instance. The host configures an instance once, before
/// any hook.
#[doc(hidden)]
pub struct Slot<P>(OnceCell<P>);

impl<P: Policy> Slot<P> {
    /// An instance that is not configured.
    #[expect(clippy::new_without_default, reason = "made in a const context only")]
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// `lifecycle.configure`
    ///
    /// # Errors
    /// A text that refuses the settings.
    pub fn configure(&self, settings: &str) -> Result<(), String> {
        log_panics();
        let policy = crate::policy::configure(settings)?;
        self.0
            .set(policy)
            .map_err(|_| "configured twice".to_owned())
    }

    /// `route-hook.on-route`
    pub fn on_route(&self) {
        if let Some(policy) = self.0.get() {
            policy.on_route(&Request::current());
        }
    }

    /// `request-hook.on-request`
    pub fn on_request(&self) -> Verdict {
        self.decide(|policy| policy.on_request(&Request::current()))
    }

    /// `branch-hook.on-branch`
    pub fn on_branch(&self, target: &Target) -> BranchVerdict {
        match self.0.get() {
            Some(policy) => policy.on_branch(&Request::current(), target),
            None => BranchVerdict::Keep,
        }
    }

    /// `reply-hook.on-reply`
    pub fn on_reply(&self) -> ReplyVerdict {
        match self.0.get() {
            Some(policy) => policy.on_reply(&Response::current()),
            None => ReplyVerdict::Forward,
        }
    }

    /// `failure-hook.on-failure`
    pub fn on_failure(&self, failure: &Failure) -> Verdict {
        self.decide(|policy| policy.on_failure(&Request::current(), failure))
    }

    /// `dialog-hook.on-dialog`
    pub fn on_dialog(&self, event: &DialogEvent) {
        if let Some(policy) = self.0.get() {
            policy.on_dialog(event);
        }
    }

    /// A host that asks before it configures gets an answer, never a trap.
    fn decide(&self, decide: impl FnOnce(&P) -> Verdict) -> Verdict {
        match self.0.get() {
            Some(policy) => decide(policy),
            None => Verdict::reply(500).reason("Policy Not Configured").into(),
        }
    }
}
