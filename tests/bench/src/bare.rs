//! A policy in bare wasmtime: the engine settings of the sandbox, and a host
//! whose every answer is a constant. What the sandbox costs beyond it is ours.

use std::sync::Arc;

use wasmtime::component::{Component, ComponentType, HasSelf, Instance, Linker, Lower};
use wasmtime::{Engine, Store};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "policy",
        imports: { default: trappable },
    });
}

use bindings::exports::sipbox::policy::{lifecycle, request_hook};
use bindings::sipbox::policy::types::{Body, Edit, Error, Verdict};
use bindings::sipbox::policy::{auth, call, location, log, message};

/// Bytes and index of `message.view`.
pub type ViewParts = (String, Vec<u32>);

#[derive(ComponentType, Lower)]
#[component(record)]
struct View {
    text: String,
    index: Vec<u32>,
}

/// The constant host.
pub struct Host {
    view: Arc<View>,
}

/// An instance in bare wasmtime.
pub struct Bare {
    store: Store<Host>,
    hook: request_hook::Guest,
}

impl Bare {
    /// Compiles, links, instantiates and configures.
    ///
    /// # Panics
    /// When any of it fails.
    #[must_use]
    pub fn new(component: &[u8], settings: &str, (text, index): ViewParts) -> Self {
        let mut config = sipbox_wasm::config();
        config.allocation_strategy(sipbox_wasm::pooling(10));
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_binary(&engine, component).unwrap();
        let mut linker = Linker::<Host>::new(&engine);
        message::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).unwrap();
        call::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).unwrap();
        log::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).unwrap();
        auth::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).unwrap();
        location::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).unwrap();
        linker.allow_shadowing(true);
        linker
            .instance("sipbox:policy/message@0.1.0")
            .unwrap()
            .func_wrap(
                "view",
                |store: wasmtime::StoreContextMut<'_, Host>, (): ()| {
                    Ok((Arc::clone(&store.data().view),))
                },
            )
            .unwrap();
        let pre = linker.instantiate_pre(&component).unwrap();
        let host = Host {
            view: Arc::new(View { text, index }),
        };
        let mut store = Store::new(&engine, host);
        // Nothing ticks here: the check stays, the deadline never comes.
        store.set_epoch_deadline(1);
        let instance: Instance = pre.instantiate(&mut store).unwrap();
        let lifecycle = lifecycle::GuestIndices::new(&pre).unwrap();
        let lifecycle = lifecycle.load(&mut store, &instance).unwrap();
        lifecycle
            .call_configure(&mut store, settings)
            .unwrap()
            .unwrap();
        let hook = request_hook::GuestIndices::new(&pre).unwrap();
        let hook = hook.load(&mut store, &instance).unwrap();
        Self { store, hook }
    }

    /// Calls `on-request`.
    ///
    /// # Panics
    /// When it traps.
    pub fn call(&mut self) -> Verdict {
        self.hook.call_on_request(&mut self.store).unwrap()
    }
}

type Outcome = wasmtime::Result<Result<(), Error>>;

impl message::Host for Host {
    fn view(&mut self) -> wasmtime::Result<message::MessageView> {
        Ok(message::MessageView {
            text: self.view.text.clone(),
            index: self.view.index.clone(),
        })
    }
    fn bytes(&mut self) -> wasmtime::Result<Vec<u8>> {
        Ok(self.view.text.clone().into_bytes())
    }
    fn method(&mut self) -> wasmtime::Result<String> {
        Ok("INVITE".to_owned())
    }
    fn request_uri(&mut self) -> wasmtime::Result<String> {
        Ok("sip:bob@example.org".to_owned())
    }
    fn status(&mut self) -> wasmtime::Result<u16> {
        Ok(0)
    }
    fn header(&mut self, _: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
    fn headers(&mut self, _: String) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn body(&mut self) -> wasmtime::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn set_header(&mut self, _: String, _: String) -> Outcome {
        Ok(Ok(()))
    }
    fn add_header(&mut self, _: String, _: String) -> Outcome {
        Ok(Ok(()))
    }
    fn remove_header(&mut self, _: String) -> Outcome {
        Ok(Ok(()))
    }
    fn set_request_uri(&mut self, _: String) -> Outcome {
        Ok(Ok(()))
    }
    fn set_body(&mut self, _: Body) -> Outcome {
        Ok(Ok(()))
    }
    fn apply(&mut self, _: Vec<Edit>) -> Outcome {
        Ok(Ok(()))
    }
}

impl call::Host for Host {
    fn source(&mut self) -> wasmtime::Result<call::SourceAddress> {
        Ok(call::SourceAddress {
            address: "192.0.2.10".to_owned(),
            port: 5060,
            transport: bindings::sipbox::policy::types::Transport::Udp,
        })
    }
    fn listener(&mut self) -> wasmtime::Result<String> {
        Ok("edge".to_owned())
    }
    fn tenant(&mut self) -> wasmtime::Result<String> {
        Ok("acme".to_owned())
    }
    fn now(&mut self) -> wasmtime::Result<call::Time> {
        Ok(call::Time {
            seconds: 1_790_000_000,
            milliseconds: 123,
        })
    }
    fn in_dialog(&mut self) -> wasmtime::Result<bool> {
        Ok(false)
    }
    fn direction(&mut self) -> wasmtime::Result<call::DialogDirection> {
        Ok(call::DialogDirection::Unknown)
    }
    fn route_outcome(&mut self) -> wasmtime::Result<call::RouteResult> {
        Ok(call::RouteResult::None)
    }
    fn route_param(&mut self, _: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
    fn route_signature(&mut self) -> wasmtime::Result<call::SignatureResult> {
        Ok(call::SignatureResult::None)
    }
    fn route_params(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }
    fn check_route_param(&mut self, _: String) -> wasmtime::Result<Result<bool, Error>> {
        Ok(Ok(false))
    }
    fn record_route(&mut self, _: Vec<(String, String)>) -> Outcome {
        Ok(Ok(()))
    }
    fn record_route_preset(&mut self, _: String, _: Option<String>) -> Outcome {
        Ok(Ok(()))
    }
    fn add_route_param(&mut self, _: String, _: String) -> Outcome {
        Ok(Ok(()))
    }
    fn authenticated_user(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
    fn var(&mut self, _: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
    fn set_var(&mut self, _: String, _: String) -> Outcome {
        Ok(Ok(()))
    }
    fn classify_source(&mut self, _: call::SourceClass) -> wasmtime::Result<call::SourceClass> {
        Ok(call::SourceClass::empty())
    }
    fn arm(&mut self, _: call::Hooks) -> Outcome {
        Ok(Ok(()))
    }
}

impl log::Host for Host {
    fn log(&mut self, _: log::Level, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl auth::Host for Host {
    fn check(&mut self, _: auth::Realm) -> wasmtime::Result<Result<auth::Outcome, Error>> {
        Ok(Ok(auth::Outcome::Authenticated("alice".to_owned())))
    }
    fn challenge(&mut self, _: auth::Realm) -> Outcome {
        Ok(Ok(()))
    }
}

impl location::Host for Host {
    fn lookup(&mut self, _: String) -> wasmtime::Result<Result<Vec<location::Binding>, Error>> {
        Ok(Ok(Vec::new()))
    }
    fn save(
        &mut self,
        _: String,
        _: location::SaveLimits,
    ) -> wasmtime::Result<Result<location::SaveOutcome, Error>> {
        Ok(Ok(location::SaveOutcome::Saved(1)))
    }
    fn remove(&mut self, _: String) -> wasmtime::Result<Result<u32, Error>> {
        Ok(Ok(0))
    }
}
