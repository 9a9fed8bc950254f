//! The program: reads the command line, runs the command, exits with the code of what happened.

use std::io::Write;
use std::process::ExitCode;

use ebs_bake::cli::{self, Command, Context};
use ebs_bake::error::{Kind, OrFail, Result};
use ebs_bake::report::console::Console;

fn main() -> ExitCode {
    let parsed = cli::parse(std::env::args_os(), &Context::of_process());
    let console = Console::stderr(parsed.console);
    match parsed.command.and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Print(text) => print(&text),
        Command::Bake(bake) => bake.outputs.check_writable(),
        Command::List(_) | Command::Restore(_) | Command::Cleanup(_) => Ok(()),
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.or_fail(Kind::Usage, || "cannot write to stdout"),
    }
}
