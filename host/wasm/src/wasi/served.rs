//! The list of functions that are served; a test holds it against the linker.

/// Interfaces and their functions.
pub(crate) const SERVED: &[(&str, &[&str])] = &[
    (
        "wasi:cli/environment",
        &["get-environment", "get-arguments", "initial-cwd"],
    ),
    ("wasi:cli/exit", &["exit"]),
    ("wasi:cli/stdin", &["get-stdin"]),
    ("wasi:cli/stdout", &["get-stdout"]),
    ("wasi:cli/stderr", &["get-stderr"]),
    ("wasi:cli/terminal-input", &[]),
    ("wasi:cli/terminal-output", &[]),
    ("wasi:cli/terminal-stdin", &["get-terminal-stdin"]),
    ("wasi:cli/terminal-stdout", &["get-terminal-stdout"]),
    ("wasi:cli/terminal-stderr", &["get-terminal-stderr"]),
    ("wasi:io/error", &["[method]error.to-debug-string"]),
    (
        "wasi:io/poll",
        &["[method]pollable.ready", "[method]pollable.block", "poll"],
    ),
    (
        "wasi:io/streams",
        &[
            "[method]input-stream.read",
            "[method]input-stream.blocking-read",
            "[method]input-stream.skip",
            "[method]input-stream.blocking-skip",
            "[method]input-stream.subscribe",
            "[method]output-stream.check-write",
            "[method]output-stream.write",
            "[method]output-stream.blocking-write-and-flush",
            "[method]output-stream.flush",
            "[method]output-stream.blocking-flush",
            "[method]output-stream.subscribe",
        ],
    ),
    ("wasi:clocks/wall-clock", &["now", "resolution"]),
    (
        "wasi:clocks/monotonic-clock",
        &[
            "now",
            "resolution",
            "subscribe-instant",
            "subscribe-duration",
        ],
    ),
    (
        "wasi:random/random",
        &["get-random-bytes", "get-random-u64"],
    ),
    (
        "wasi:random/insecure",
        &["get-insecure-random-bytes", "get-insecure-random-u64"],
    ),
    ("wasi:random/insecure-seed", &["insecure-seed"]),
    ("wasi:filesystem/preopens", &["get-directories"]),
    (
        "wasi:filesystem/types",
        &[
            "[method]descriptor.read-via-stream",
            "[method]descriptor.write-via-stream",
            "[method]descriptor.append-via-stream",
            "[method]descriptor.get-flags",
            "[method]descriptor.get-type",
            "[method]descriptor.stat",
            "[method]descriptor.open-at",
            "[method]descriptor.metadata-hash",
            "[method]descriptor.metadata-hash-at",
            "filesystem-error-code",
        ],
    ),
];

/// Whether `item` of `interface` (with its version) is served; an empty item
/// asks for the interface alone.
pub(crate) fn serves(interface: &str, item: &str) -> bool {
    let Some((name, version)) = interface.split_once('@') else {
        return false;
    };
    version.starts_with("0.2.")
        && SERVED
            .iter()
            .find(|(known, _)| *known == name)
            .is_some_and(|(_, items)| item.is_empty() || items.contains(&item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_the_linker_has() {
        let engine = wasmtime::Engine::new(&crate::engine::config()).unwrap();
        let mut linker = crate::linker::link(&engine).unwrap();
        for (interface, functions) in SERVED {
            let mut instance = linker.instance(&format!("{interface}@0.2.6")).unwrap();
            for function in *functions {
                // A name can be defined once only.
                let again = instance.func_new(function, |_, _, _, _| Ok(()));
                assert!(
                    again.is_err(),
                    "{interface}#{function} is listed and not linked"
                );
            }
            assert!(instance.func_new("nothing", |_, _, _, _| Ok(())).is_ok());
        }
    }

    #[test]
    fn other_versions_and_functions_are_foreign() {
        assert!(serves("wasi:io/poll@0.2.0", "poll"));
        assert!(serves("wasi:io/error@0.2.11", ""));
        assert!(!serves("wasi:io/poll@0.3.0", "poll"));
        assert!(!serves("wasi:io/poll", "poll"));
        assert!(!serves(
            "wasi:sockets/tcp@0.2.0",
            "[method]tcp-socket.start-bind"
        ));
        assert!(!serves(
            "wasi:filesystem/types@0.2.0",
            "[method]descriptor.unlink-file-at"
        ));
    }
}
