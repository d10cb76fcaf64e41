//! Runs a compiler for a guest: its messages go where the request wants them.

use std::process::{Command, Stdio};

use crate::{BuildError, BuildRequest, Messages, Toolchain};

/// Runs a command to its end; that it fails is the guest's fault.
pub(crate) fn run(
    request: &BuildRequest,
    toolchain: &Toolchain,
    command: &mut Command,
) -> Result<(), BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Run { program, source })?;
    // Some tell their errors on standard output. What succeeds may still have warnings, on the
    // other one.
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(BuildError::Compile {
            package: request.package.clone(),
            toolchain: toolchain.to_string(),
            output: said.trim().to_owned(),
        });
    }
    if request.messages == Messages::Shown {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
