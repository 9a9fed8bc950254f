//! The program: reads the command line, runs the command, exits with the code of what happened.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ebs_bake::cancel::Cancel;
use ebs_bake::cli::{self, Command, Context};
use ebs_bake::commands::Outcome;
use ebs_bake::error::{Kind, OrFail, Result};
use ebs_bake::fleet::user_data;
use ebs_bake::report::console::Console;
use ebs_bake::report::{Report, trace};
use ebs_bake::{commands, host, step};

/// How long threads whose work is not wanted any more have: a file of many GiB is removed in that time.
const CLEARING: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // A crash leaves no image of the memory, which has tokens in it. What this process starts is not concerned.
    let _ = nix::sys::prctl::set_dumpable(false);
    host::names::use_own_sources();
    let context = Context::of_process();
    let parsed = cli::parse(std::env::args_os(), &context);
    let console = Arc::new(Console::stderr(parsed.console));
    let traced = context.environment.get(trace::VARIABLE).map_or(Ok(()), |filter| trace::install(filter, console.clone()));
    match traced.and(parsed.command).and_then(|command| run(command, &console)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(command: Command, console: &Arc<Console>) -> Result<()> {
    if let Command::Bake(_) = command {
        // Before there are threads: what they mount is to be seen by this process alone, and to die with it. Without the
        // privilege for it nothing can be mounted either, and a commit that is baked already is found all the same.
        let _ = host::mount::enter_private_namespace();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail(Kind::Device, || "cannot start")?;
    let cancel = Cancel::new();
    let finished = runtime.block_on(async {
        commands::signals::watch(&cancel, console)?;
        dispatch(command, console, &cancel).await
    });
    // What was given up clears away after itself, but a thread that still waits for a silent network must not keep the process.
    runtime.shutdown_timeout(CLEARING);
    finished
}

async fn dispatch(command: Command, console: &Arc<Console>, cancel: &Cancel) -> Result<()> {
    match command {
        Command::Print(text) => print(text),
        Command::Bake(config) => {
            let report = Report::new(console.clone());
            hand_on(commands::bake(*config, report, cancel).await?, console)
        }
        Command::Rollout(config) => {
            let report = Report::new(console.clone());
            hand_on(commands::rollout(*config, report, cancel).await?, console)
        }
        Command::Doctor(config) => {
            let (text, verdict) = commands::doctor(*config).await?;
            print(text)?;
            verdict.map_or(Ok(()), Err)
        }
        Command::List(config) => print(commands::list(config, &Report::new(console.clone())).await?),
        Command::Prune(config) => {
            let (text, failure) = commands::prune(config, &Report::new(console.clone()), cancel).await?;
            print(text)?;
            failure.map_or(Ok(()), Err)
        }
        Command::Restore(config) => commands::restore(config, &Report::new(console.clone())).await,
        Command::UserData(config) => print(user_data::render(&config)?),
        Command::Cleanup(config) => commands::cleanup(config, &Report::new(console.clone())).await,
    }
}

/// stdout has the snapshot's ID, the log the rest.
fn hand_on(outcome: Outcome, console: &Console) -> Result<()> {
    if let Some(outputs) = &outcome.outputs {
        step::around("telling the ID", || print(format!("{}\n", outputs.snapshot_id)))?;
        console.result(outputs);
    }
    outcome.cleanup.map_or(Ok(()), Err)
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: impl AsRef<[u8]>) -> Result<()> {
    match std::io::stdout().write_all(text.as_ref()) {
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.or_fail(Kind::Usage, || "cannot write to stdout"),
    }
}
