//! The command line: what the user typed, laid over environment and file, becomes one [`Command`].

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, Parser, Subcommand};

use crate::ci::{self, Ci};
use crate::config::layers::{Environment, Layer, resolve};
use crate::config::settings::{self, General};
use crate::config::{self, file, validate};
use crate::error::{Error, Kind, Result};
use crate::fleet::user_data::UserData;
use crate::report::console::Options;
use crate::source::Location;

pub mod listing;
pub mod pages;
pub mod problem;
pub mod pruning;

/// What the program is asked to do, validated.
#[derive(Debug, Clone)]
pub enum Command {
    /// Bake a commit into a snapshot.
    Bake(Box<config::Bake>),
    /// See whether a command would work here.
    Doctor(Box<config::Doctor>),
    /// List snapshots and who uses them.
    List(config::List),
    /// Delete old snapshots that nobody uses.
    Prune(config::Prune),
    /// Mount a snapshot, or undo that.
    Restore(config::Restore),
    /// Clear away what killed runs left.
    Cleanup(config::Cleanup),
    /// Let new machines boot from a snapshot.
    Rollout(Box<config::rollout::Rollout>),
    /// Print what boots a node.
    UserData(UserData),
    /// Print this to stdout: help, version, completions, the man page.
    Print(String),
}

/// What is known of the process beside its arguments.
pub struct Context {
    /// Its variables.
    pub environment: Environment,
    /// The working directory: where `ebs-bake.yml` is looked for.
    pub directory: PathBuf,
    /// Whether somebody watches the log.
    pub stderr_is_terminal: bool,
    /// How a repository is read from text.
    pub parse_location: validate::ParseLocation,
}

impl Context {
    /// The context of this process.
    pub fn of_process() -> Self {
        Context {
            environment: Environment::of_process(),
            directory: PathBuf::from("."),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            parse_location: Location::parse,
        }
    }
}

/// What to do, and how to talk about it: the latter is known even if the former is an error.
#[derive(Debug)]
pub struct Parsed {
    /// How to talk.
    pub console: Options,
    /// What to do.
    pub command: Result<Command>,
}

const ABOUT: &str = "Bakes a git commit into a volume snapshot, from any CI system";
const LAYERS: &str = "Every option is also a variable (--volume-name is EBS_BAKE_VOLUME_NAME) and a key of ebs-bake.yml
(volume-name). A flag beats a variable, a variable beats the file.
EBS_BAKE_TRACE=debug adds what is done in detail to the log, each call of AWS above all.";
const EXAMPLE: &str = "Example:
  ebs-bake bake --repository https://github.com/acme/chef-repo --ref main";
const BAKE_EXAMPLE: &str = "Example, in a CI job (repository, commit and ref are the job's):
  SNAPSHOT_ID=$(ebs-bake bake --output-json bake.json)";
const DOCTOR_EXAMPLE: &str = "Example, on the host or in the container that will bake:
  ebs-bake doctor --volume-name chef
or with what rolls out or prunes:
  ebs-bake doctor --for rollout --launch-template chef --auto-scaling-group web --refresh";
const LIST_EXAMPLE: &str = "Example:
  ebs-bake list --volume-name chef";
const PRUNE_EXAMPLE: &str = "Example:
  ebs-bake prune --keep 10 --keep-days 30 --dry-run";
const RESTORE_EXAMPLE: &str = "Example:
  ebs-bake restore --snapshot-id snap-0123456789abcdef0 --mount-point /mnt/chef
  ebs-bake restore --detach --mount-point /mnt/chef";
const ROLLOUT_EXAMPLE: &str = "Example, and the way back:
  ebs-bake rollout --snapshot-id snap-0123456789abcdef0 --launch-template chef --auto-scaling-group web --refresh
  ebs-bake rollout --previous --launch-template chef --auto-scaling-group web --refresh";
const USER_DATA_EXAMPLE: &str = "Example:
  ebs-bake user-data --role web --environment prod --format base64   # UserData of a launch template
  ebs-bake user-data --fstab >> /etc/fstab                           # of an image";
const COMPLETIONS_EXAMPLE: &str = "Example:
  ebs-bake completions bash > /etc/bash_completion.d/ebs-bake";

/// The arguments, as clap sees them.
#[derive(Debug, Parser)]
#[command(name = "ebs-bake", version, about = ABOUT, max_term_width = 100, subcommand_required = true)]
#[command(after_help = format!("{LAYERS}\n\n{EXAMPLE}"), disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    general: General,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Bake a commit into a snapshot, or find the one that has it
    #[command(after_help = format!("{LAYERS}\n\n{BAKE_EXAMPLE}"))]
    Bake(Box<settings::Bake>),
    /// See whether a bake, a rollout or pruning would work here, without doing it
    #[command(after_help = DOCTOR_EXAMPLE)]
    Doctor(Box<settings::Doctor>),
    /// List the snapshots and who uses them
    #[command(after_help = LIST_EXAMPLE)]
    List(settings::List),
    /// Delete snapshots that are old and that nobody uses
    #[command(after_help = PRUNE_EXAMPLE)]
    Prune(settings::Prune),
    /// Mount a snapshot read-only to look at it, or put it away again
    #[command(after_help = RESTORE_EXAMPLE)]
    Restore(settings::Restore),
    /// Clear away what killed runs left on this host
    Cleanup(settings::Cleanup),
    /// Let new machines boot from a snapshot, and replace those that run
    #[command(after_help = ROLLOUT_EXAMPLE)]
    Rollout(Box<settings::rollout::Rollout>),
    /// Print the script that boots a node from a baked volume
    #[command(after_help = format!("{LAYERS}\n\n{USER_DATA_EXAMPLE}"))]
    UserData(Box<settings::UserData>),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLE)]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// The command line's definition: for completions, the manual and checks of the documentation.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The long names of all options of all commands, sorted.
pub fn option_names() -> Vec<String> {
    let definition = definition();
    let commands = std::iter::once(&definition).chain(definition.get_subcommands());
    let longs = commands.flat_map(|command| command.get_arguments().filter_map(|argument| argument.get_long()));
    let mut names: Vec<String> = longs.filter(|name| !matches!(*name, "help" | "version")).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Reads the arguments (the program's name first), the environment and the file.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, context: &Context) -> Parsed {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let ci = ci::detect(&context.environment);
    let options = |general| Options::new(general, context.stderr_is_terminal, &context.environment, ci.system);
    match understand(&arguments, &ci, context) {
        Ok((general, command)) => Parsed { console: options(general), command },
        Err(error) => Parsed { console: options(best_guess(&arguments, &context.environment)), command: Err(error) },
    }
}

/// How to talk and what to do. An error of the whole: how to talk is not known either.
fn understand(arguments: &[OsString], ci: &Ci, context: &Context) -> Result<(General, Result<Command>)> {
    let matches = match definition().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return without_command(&error, arguments).map(|command| (General::default(), Ok(command))),
    };
    let (name, flags) = matches.subcommand().expect("clap lets no command line pass without one");
    let (layers, general) = settings(flags, context)?;
    let layers: Vec<&Layer> = layers.iter().collect();
    Ok((general, command(name, &layers, flags, ci, context)))
}

/// What can be read of how to talk in a command line, an environment or a file that has an error somewhere.
fn best_guess(arguments: &[OsString], environment: &Environment) -> General {
    let matches = definition().ignore_errors(true).try_get_matches_from(arguments).unwrap_or_default();
    let flags = matches.subcommand().map_or(&matches, |(_, flags)| flags);
    let layer = Layer::of_environment(environment).unwrap_or_default();
    resolve(&[&layer], flags).unwrap_or_default()
}

/// The file's and the environment's settings, in rising order, and those that every command has.
fn settings(flags: &ArgMatches, context: &Context) -> Result<([Layer; 2], General)> {
    let known = option_names();
    let environment = Layer::of_environment(&context.environment)?;
    environment.check_keys(&known)?;
    let named: General = resolve(&[&environment], flags)?;
    let file = file::load(named.config.as_deref(), &context.directory)?;
    file.check_keys(&known)?;
    let general = resolve(&[&file, &environment], flags)?;
    Ok(([file, environment], general))
}

fn command(name: &str, layers: &[&Layer], flags: &ArgMatches, ci: &Ci, context: &Context) -> Result<Command> {
    match name {
        "bake" => {
            let settings = resolve(layers, flags)?;
            let bake = validate::bake(settings, ci, &context.environment, context.parse_location)?;
            Ok(Command::Bake(Box::new(bake)))
        }
        "doctor" => Ok(Command::Doctor(Box::new(validate::doctor(resolve(layers, flags)?)?))),
        "list" => validate::list(resolve(layers, flags)?).map(Command::List),
        "prune" => validate::prune(resolve(layers, flags)?).map(Command::Prune),
        "restore" => validate::restore(resolve(layers, flags)?).map(Command::Restore),
        "cleanup" => validate::cleanup(resolve(layers, flags)?).map(Command::Cleanup),
        "rollout" => Ok(Command::Rollout(Box::new(validate::rollout(resolve(layers, flags)?, ci)?))),
        "user-data" => {
            let settings = resolve(layers, flags)?;
            validate::user_data(settings, context.parse_location).map(Command::UserData)
        }
        "completions" => {
            let shell = flags.get_one("shell").copied().expect("clap requires it");
            Ok(Command::Print(pages::completions(shell)))
        }
        _ => pages::manual().map(Command::Print),
    }
}

/// Help and version are answers; everything else is an error.
fn without_command(error: &clap::Error, arguments: &[OsString]) -> Result<Command> {
    let definition = definition();
    let named = arguments.iter().skip(1).find_map(|argument| definition.find_subcommand(argument));
    let help = named.map_or("ebs-bake --help".to_owned(), |command| format!("ebs-bake {} --help", command.get_name()));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Command::Print(error.render().to_string())),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Error::new(Kind::Usage, "a command is needed, such as bake or list").hint(format!("see {help}")))
        }
        _ => Err(problem::Problem::of(error).into_flag_error(&help)),
    }
}
