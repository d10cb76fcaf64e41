//! The Rust face of `wit/policy.wit`, generated. The world exports every hook;
//! a component may have any subset, so the exports are looked up one by one
//! ([`crate::component`]) and the generated world type is not used.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "policy",
    imports: { default: trappable },
});

pub(crate) use self::exports::sipbox::policy as hooks;
pub(crate) use self::sipbox::policy as wit;
