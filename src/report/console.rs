//! What a run shows on stderr: lines for people, or one JSON object a line.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::outputs::Outputs;
use super::{Event, Observer, Phase, Unit};
use crate::ci::System;
use crate::cli::speaks_github;
use crate::config::layers::Environment;
use crate::config::settings::{ColorChoice, General, LogFormat};
use crate::error::Error;

mod json;
mod text;

pub use text::{seconds, short_ref};

#[cfg(test)]
mod tests;

/// How long a phase may be silent before a line says that it goes on: within the 10 to 30 s that people wait for a sign of
/// life, and far from the minutes after which CI systems kill silent jobs.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// A line for each finished phase, notes, and what the user's command says.
    Normal,
    /// Also what begins, what the git host says, and a table of times.
    Verbose,
}

/// How to talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Lines for people or objects.
    pub format: LogFormat,
    /// How much is said.
    pub verbosity: Verbosity,
    /// Whether lines have colours.
    pub color: bool,
    /// A terminal: progress bars.
    pub terminal: bool,
    /// GitHub Actions: groups and annotations.
    pub github: bool,
}

impl Options {
    /// What the settings say; for colour NO_COLOR beats CLICOLOR_FORCE beats CLICOLOR beats whether stderr is a terminal.
    pub fn new(settings: General, stderr_is_terminal: bool, environment: &Environment, ci: Option<System>) -> Options {
        let is = |name: &str, wanted: bool| environment.get(name).is_some_and(|value| (value != "0") == wanted);
        let color = match settings.color.unwrap_or_default() {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if environment.get("NO_COLOR").is_some() => false,
            ColorChoice::Auto if is("CLICOLOR_FORCE", true) => true,
            ColorChoice::Auto if is("CLICOLOR", false) => false,
            ColorChoice::Auto => stderr_is_terminal && environment.get("TERM") != Some("dumb"),
        };
        let verbosity = match (settings.verbose.unwrap_or(false), settings.quiet.unwrap_or(false)) {
            (true, _) => Verbosity::Verbose,
            (false, true) => Verbosity::Quiet,
            (false, false) => Verbosity::Normal,
        };
        Options {
            format: settings.log_format.unwrap_or_default(),
            verbosity,
            color,
            terminal: stderr_is_terminal,
            github: speaks_github(ci),
        }
    }
}

/// A phase that has begun and not ended.
struct Running {
    phase: Phase,
    began: Instant,
    /// When it last gave a sign of life.
    said: Instant,
    progress: Option<Progress>,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Progress {
    done: u64,
    total: Option<u64>,
    unit: Unit,
}

struct State {
    out: Box<dyn Write + Send>,
    running: Vec<Running>,
    /// The phase whose output is being shown in a group.
    group: Option<Phase>,
    /// Whether somebody else's output stands between our lines.
    interleaved: bool,
    bar: Option<ProgressBar>,
    stopped: bool,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    stop: Condvar,
}

/// An [`Observer`] that writes to stderr (or, in tests, elsewhere). Writing errors are ignored: a run must not fail because
/// nobody reads its log.
pub struct Console {
    shared: Arc<Shared>,
    heart: Mutex<Option<JoinHandle<()>>>,
}

impl Console {
    /// Writes to stderr.
    pub fn stderr(options: Options) -> Self {
        Self::new(options, Box::new(io::stderr()))
    }

    /// Writes to `out`.
    pub fn new(options: Options, out: Box<dyn Write + Send>) -> Self {
        let bar = (options.terminal && options.format == LogFormat::Text && options.verbosity > Verbosity::Quiet).then(bar);
        let state = State { out, running: Vec::new(), group: None, interleaved: false, bar, stopped: false };
        let shared = Arc::new(Shared { options, state: Mutex::new(state), stop: Condvar::new() });
        Console { shared, heart: Mutex::default() }
    }

    /// Shows an error: the message, its causes and the hint; on GitHub also as an annotation of the run.
    pub fn error(&self, error: &Error) {
        self.shared.lock().write(&render_error(error, &self.shared.options));
    }

    /// Shows a result, and the table of times if the lines of the phases stand far apart.
    pub fn result(&self, outputs: &Outputs) {
        let options = &self.shared.options;
        let mut state = self.shared.lock();
        if options.format == LogFormat::Json {
            return state.write(&json::result(outputs));
        }
        if options.verbosity == Verbosity::Quiet {
            return;
        }
        if state.interleaved || options.verbosity == Verbosity::Verbose {
            state.write(&text::table(&outputs.phases));
        }
        state.write(&text::result(outputs, options.color));
    }

    /// Starts the thread that gives signs of life: not before the first phase, so that what must happen before there are
    /// threads can happen.
    fn start_heart(&self) {
        let mut heart = self.heart.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if heart.is_none() && self.shared.options.verbosity > Verbosity::Quiet {
            let shared = Arc::clone(&self.shared);
            *heart = std::thread::Builder::new().name("heartbeat".into()).spawn(move || shared.beat()).ok();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.stop.notify_all();
        let heart = self.heart.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(heart) = heart.take() {
            let _ = heart.join();
        }
    }
}

impl Observer for Console {
    fn event(&self, event: &Event<'_>) {
        if let Event::Started(_) = event {
            self.start_heart();
        }
        let mut state = self.shared.lock();
        state.track(event, Instant::now());
        let options = &self.shared.options;
        if !worth_saying(event, options.verbosity) {
            return;
        }
        let rendered = match options.format {
            LogFormat::Json => json::event(event),
            LogFormat::Text => {
                let group = if options.github { state.group_marks(event) } else { String::new() };
                group + &text::event(event, options.color)
            }
        };
        state.interleaved |= matches!(event, Event::Output { .. });
        state.write(&rendered);
    }
}

/// Whether an event gets a line of its own at this verbosity. Progress never does: the heartbeat and the bar show it.
fn worth_saying(event: &Event<'_>, verbosity: Verbosity) -> bool {
    match event {
        Event::Progress { .. } => false,
        Event::Warning(_) => true,
        Event::Started(_) => verbosity == Verbosity::Verbose,
        // git hosts are chatty ("Counting objects"); what the user's own command says is wanted.
        Event::Output { phase, .. } => verbosity >= if *phase == Phase::Fetch { Verbosity::Verbose } else { Verbosity::Normal },
        Event::Finished { .. } | Event::Failed { .. } | Event::Note(_) => verbosity >= Verbosity::Normal,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn beat(&self) {
        let mut state = self.lock();
        while !state.stopped {
            for line in state.signs_of_life(Instant::now(), self.options.format) {
                state.write(&line);
            }
            state = self.stop.wait_timeout(state, TICK).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

impl State {
    fn write(&mut self, text: &str) {
        let out = &mut self.out;
        let mut write = || {
            let _ = out.write_all(text.as_bytes());
            let _ = out.flush();
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Keeps the list of running phases and the bar up to date.
    fn track(&mut self, event: &Event<'_>, now: Instant) {
        match *event {
            Event::Started(phase) => self.running.push(Running { phase, began: now, said: now, progress: None }),
            Event::Progress { phase, done, total, unit } => {
                if let Some(running) = self.running.iter_mut().find(|running| running.phase == phase) {
                    running.progress = Some(Progress { done, total, unit });
                }
            }
            Event::Output { phase, .. } => {
                self.running.iter_mut().filter(|running| running.phase == phase).for_each(|running| running.said = now);
            }
            Event::Finished { phase, .. } | Event::Failed { phase, .. } => {
                self.running.retain(|running| running.phase != phase);
            }
            Event::Note(_) | Event::Warning(_) => {}
        }
        if let Some(bar) = &self.bar {
            draw(bar, self.running.last());
        }
    }

    /// The lines that are due at `now`: one for each phase that was silent for the length of a heartbeat.
    fn signs_of_life(&mut self, now: Instant, format: LogFormat) -> Vec<String> {
        if self.bar.is_some() {
            return Vec::new();
        }
        let due = self.running.iter_mut().filter(|running| now.duration_since(running.said) >= HEARTBEAT);
        due.map(|running| {
            running.said = now;
            let elapsed = now.duration_since(running.began);
            match format {
                LogFormat::Text => text::sign_of_life(running.phase, elapsed, running.progress),
                LogFormat::Json => json::sign_of_life(running.phase, elapsed, running.progress),
            }
        })
        .collect()
    }

    /// Folds what the user's command says into a group of GitHub's log.
    fn group_marks(&mut self, event: &Event<'_>) -> String {
        let wanted = match *event {
            Event::Output { phase, .. } => Some(phase),
            Event::Note(_) | Event::Warning(_) => self.group,
            _ => None,
        };
        if wanted == self.group {
            return String::new();
        }
        let mut marks = String::new();
        if self.group.is_some() {
            marks += "::endgroup::\n";
        }
        if let Some(phase) = wanted {
            marks += &format!("::group::output of {}\n", phase.name());
        }
        self.group = wanted;
        marks
    }
}

/// An error in the wanted format, with its final line end.
pub fn render_error(error: &Error, options: &Options) -> String {
    match options.format {
        LogFormat::Json => json::error(error),
        LogFormat::Text => text::error(error, options.color, options.github),
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::default_spinner());
    bar
}

/// Shows the phase that runs, with a bar if it is known how much there is to do.
fn draw(bar: &ProgressBar, running: Option<&Running>) {
    const SPIN: Duration = Duration::from_millis(120);
    let Some(running) = running else {
        bar.disable_steady_tick();
        return bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    };
    let known = running.progress.and_then(|progress| progress.total.map(|total| (progress.done, total)));
    let template =
        if known.is_some() { "{spinner} {prefix:<14} {wide_bar} {msg}" } else { "{spinner} {prefix:<14} {elapsed} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if bar.prefix() != running.phase.name() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        bar.reset();
        bar.set_prefix(running.phase.name());
        bar.enable_steady_tick(SPIN);
    }
    if let Some((done, total)) = known {
        bar.set_length(total);
        bar.set_position(done);
    }
    bar.set_message(running.progress.map(text::progress).unwrap_or_default());
}
