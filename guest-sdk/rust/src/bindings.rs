//! The contract in Rust, generated once from `wit/` for every policy.
//!
//! Nothing is written by hand here but the worlds: one with all imports (those
//! that a policy does not use vanish when it is linked) and one for each export,
//! so that a component exports the hooks that its `export!` lists and no more.

/// Imports, and the types of both directions.
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world host {
                import sipbox:policy/types@0.1.0;
                import sipbox:policy/message@0.1.0;
                import sipbox:policy/call@0.1.0;
                import sipbox:policy/log@0.1.0;
                import sipbox:policy/auth@0.1.0;
                import sipbox:policy/location@0.1.0;
                import sipbox:policy/nat@0.1.0;
                import sipbox:policy/dialogs@0.1.0;
                import sipbox:policy/leases@0.1.0;
                import sipbox:policy/kv@0.1.0;
                import sipbox:policy/counters@0.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        additional_derives: [PartialEq, Eq],
    });
}

/// `lifecycle`
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world lifecycle { export sipbox:policy/lifecycle@0.1.0; }
        ",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "$crate::bindings::lifecycle",
        additional_derives: [PartialEq, Eq],
    });
}

/// `route-hook`
pub mod route {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world route { export sipbox:policy/route-hook@0.1.0; }
        ",
        pub_export_macro: true,
        export_macro_name: "export_route",
        default_bindings_module: "$crate::bindings::route",
    });
}

/// `request-hook`
pub mod request {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world request { export sipbox:policy/request-hook@0.1.0; }
        ",
        with: { "sipbox:policy/types@0.1.0": crate::bindings::host::sipbox::policy::types },
        pub_export_macro: true,
        export_macro_name: "export_request",
        default_bindings_module: "$crate::bindings::request",
    });
}

/// `branch-hook`
pub mod branch {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world branch { export sipbox:policy/branch-hook@0.1.0; }
        ",
        with: { "sipbox:policy/types@0.1.0": crate::bindings::host::sipbox::policy::types },
        pub_export_macro: true,
        export_macro_name: "export_branch",
        default_bindings_module: "$crate::bindings::branch",
        additional_derives: [PartialEq, Eq],
    });
}

/// `reply-hook`
pub mod reply {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world reply { export sipbox:policy/reply-hook@0.1.0; }
        ",
        pub_export_macro: true,
        export_macro_name: "export_reply",
        default_bindings_module: "$crate::bindings::reply",
        additional_derives: [PartialEq, Eq],
    });
}

/// `failure-hook`
pub mod failure {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world failure { export sipbox:policy/failure-hook@0.1.0; }
        ",
        with: { "sipbox:policy/types@0.1.0": crate::bindings::host::sipbox::policy::types },
        pub_export_macro: true,
        export_macro_name: "export_failure",
        default_bindings_module: "$crate::bindings::failure",
        additional_derives: [PartialEq, Eq],
    });
}

/// `dialog-hook`
pub mod dialog {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sipbox:sdk;
            world dialog { export sipbox:policy/dialog-hook@0.1.0; }
        ",
        pub_export_macro: true,
        export_macro_name: "export_dialog",
        default_bindings_module: "$crate::bindings::dialog",
        additional_derives: [PartialEq, Eq],
    });
}
