//! What the other chores need on the machine: compilers for policies, and the test peers.

use std::process::Command;

use anyhow::bail;
use sipbox_policy_build::system::{Apt, is_installed};
use sipbox_policy_build::{Language, Preference, TOOLCHAIN_VARIABLE, Toolchain};

use crate::step::say;
use crate::workspace::Workspace;

/// A program that tests talk to, and the Debian package that brings it.
struct Peer {
    program: &'static str,
    package: &'static str,
}

const PEERS: &[Peer] = &[
    Peer {
        program: "sipp",
        package: "sip-tester",
    },
    Peer {
        program: "baresip",
        package: "baresip-core",
    },
    Peer {
        program: "linphonec",
        package: "linphone-cli",
    },
    Peer {
        program: "kamailio",
        package: "kamailio",
    },
    Peer {
        program: "sqlite3",
        package: "sqlite3",
    },
    Peer {
        program: "ip",
        package: "iproute2",
    },
    Peer {
        program: "nft",
        package: "nftables",
    },
];

/// What the machine can be tested for.
pub(crate) struct Machine {
    /// The second toolchain is there, and the builder's tests can try it.
    pub(crate) debian_rustc: bool,
}

/// The compiler for the policies that are shipped, which are in Rust: found, or installed, or an
/// error that says how.
pub(crate) fn toolchain(workspace: &Workspace, install: bool) -> anyhow::Result<Toolchain> {
    find_toolchain(
        workspace,
        Language::Rust,
        install.then(Apt::default).as_mut(),
    )
}

/// The same for every language that a policy or a test guest is written in.
pub(crate) fn toolchains(workspace: &Workspace, install: bool) -> anyhow::Result<()> {
    let mut apt = install.then(Apt::default);
    for language in Language::ALL {
        find_toolchain(workspace, language, apt.as_mut())?;
    }
    Ok(())
}

fn find_toolchain(
    workspace: &Workspace,
    language: Language,
    apt: Option<&mut Apt>,
) -> anyhow::Result<Toolchain> {
    let preference = Preference::from_environment();
    // The tools for TypeScript lie beside their SDK.
    let folder = match language {
        Language::TypeScript => workspace.root.join("guest-sdk/typescript"),
        _ => workspace.root.clone(),
    };
    let toolchain = sipbox_policy_build::toolchain(language, &preference, &folder, apt)?;
    say(format_args!(
        "policies in {language} are built by {toolchain}"
    ));
    Ok(toolchain)
}

/// Everything that `cargo xtask test` needs.
pub(crate) fn everything(workspace: &Workspace, install: bool) -> anyhow::Result<Machine> {
    // One for all: the package lists are read once.
    let mut apt = Apt::default();
    let toolchain = find_toolchain(workspace, Language::Rust, install.then_some(&mut apt))?;
    for language in [Language::C, Language::TypeScript] {
        find_toolchain(workspace, language, install.then_some(&mut apt))?;
    }
    peers(&mut apt, install)?;
    let debian_rustc = matches!(toolchain, Toolchain::Debian { .. })
        || second_toolchain(workspace, &mut apt, install)?;
    Ok(Machine { debian_rustc })
}

fn peers(apt: &mut Apt, install: bool) -> anyhow::Result<()> {
    let missing = missing_peers();
    if missing.is_empty() {
        return Ok(());
    }
    let programs = names(&missing);
    let packages: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
    if !install {
        bail!(
            "the tests need {programs}; on Debian:\n  {}",
            Apt::command_line(&packages)
        );
    }
    say(format_args!("the tests need {programs}"));
    apt.install(&packages)?;
    // Where a package is there and its program is gone, apt has nothing to do.
    let missing = missing_peers();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
        bail!(
            "{} is still not there after its package was installed; try\n  \
             apt-get install --reinstall {}",
            names(&missing),
            packages.join(" ")
        );
    }
    Ok(())
}

fn missing_peers() -> Vec<&'static Peer> {
    PEERS
        .iter()
        .filter(|peer| !is_installed(peer.program))
        .collect()
}

fn names(peers: &[&Peer]) -> String {
    let programs: Vec<&str> = peers.iter().map(|peer| peer.program).collect();
    programs.join(", ")
}

/// The builder is tested with both toolchains, so Debian's is wanted even where rustup's target is
/// there. A distribution that has no such package is told apart from one where it is not installed.
fn second_toolchain(workspace: &Workspace, apt: &mut Apt, install: bool) -> anyhow::Result<bool> {
    let find = |apt| {
        let debian = Preference::Debian;
        sipbox_policy_build::toolchain(Language::Rust, &debian, &workspace.root, apt)
    };
    let Err(missing) = find(None) else {
        return Ok(true);
    };
    if install {
        apt.refresh_lists();
    }
    if !is_offered("rustc-web") {
        say(format_args!(
            "NOT TESTED here: policies built with {TOOLCHAIN_VARIABLE}=debian \
             (this distribution has no package rustc-web)"
        ));
        return Ok(false);
    }
    if !install {
        return Err(missing.into());
    }
    find(Some(apt))?;
    Ok(true)
}

/// Whether apt knows a package and could install it.
fn is_offered(package: &str) -> bool {
    let Ok(output) = Command::new("apt-cache").args(["policy", package]).output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .any(|candidate| candidate.trim() != "(none)")
}
