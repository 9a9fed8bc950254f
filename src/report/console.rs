//! What a run shows on stderr: lines for people, or one JSON object a line.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::outputs::Outputs;
use super::{Event, Observer, Phase, Unit};
use crate::ci::System;
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
/// How often a bar moves: events of progress come by the ten thousand.
const FRAME: Duration = Duration::from_millis(100);

/// So many lines of others between ours, and the times are no longer seen at one glance.
const SCREENFUL: usize = 20;

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
            github: ci == Some(System::GitHub),
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
    /// How many lines of others stand between ours.
    foreign_lines: usize,
    /// Whether the running phase is shown as a bar.
    bars: bool,
    bar: Option<ProgressBar>,
    drawn: Option<Instant>,
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
        let bars = options.terminal && options.format == LogFormat::Text && options.verbosity > Verbosity::Quiet;
        let state =
            State { out, running: Vec::new(), group: None, foreign_lines: 0, bars, bar: None, drawn: None, stopped: false };
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
        if state.foreign_lines > SCREENFUL || options.verbosity == Verbosity::Verbose {
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
                group + &text::event(event, options.color, options.github)
            }
        };
        state.foreign_lines += usize::from(matches!(event, Event::Output { .. }));
        state.write(&rendered);
    }
}

/// Whether an event gets a line of its own at this verbosity. Progress never does: the heartbeat and the bar show it.
fn worth_saying(event: &Event<'_>, verbosity: Verbosity) -> bool {
    match event {
        Event::Progress { .. } => false,
        Event::Warning(_) | Event::Finding(_) | Event::Trace { .. } => true,
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
            Event::Note(_) | Event::Warning(_) | Event::Finding(_) | Event::Trace { .. } => {}
        }
        let soon = self.drawn.is_some_and(|drawn| now.duration_since(drawn) < FRAME);
        if self.bars && !(soon && matches!(event, Event::Progress { .. })) {
            self.drawn = Some(now);
            self.draw();
        }
    }

    /// Shows the phase that began last as a bar, if any runs.
    fn draw(&mut self) {
        let running = self.running.last();
        let name = running.map_or("", |running| running.phase.name());
        if self.bar.as_ref().is_some_and(|bar| bar.prefix() != name)
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
        if let Some(running) = running {
            advance(self.bar.get_or_insert_with(|| new_bar(name)), running.progress);
        }
    }

    /// The lines that are due at `now`: one for each phase that was silent for the length of a heartbeat.
    fn signs_of_life(&mut self, now: Instant, format: LogFormat) -> Vec<String> {
        if self.bars {
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
            Event::Note(_) | Event::Warning(_) | Event::Finding(_) | Event::Trace { .. } => self.group,
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

fn new_bar(name: &'static str) -> ProgressBar {
    const SPIN: Duration = Duration::from_millis(120);
    let bar = ProgressBar::no_length().with_prefix(name);
    bar.enable_steady_tick(SPIN);
    bar
}

/// Moves a bar; without a known end it is a spinner.
fn advance(bar: &ProgressBar, progress: Option<Progress>) {
    let total = progress.and_then(|progress| progress.total);
    let template = match total {
        Some(_) => "{spinner} {prefix:<14} {elapsed:>7}  {bar:30} {msg}",
        None => "{spinner} {prefix:<14} {elapsed:>7}  {msg}",
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
    if let (Some(total), Some(progress)) = (total, progress) {
        bar.set_length(total);
        bar.set_position(progress.done);
    }
    bar.set_message(progress.map(text::progress).unwrap_or_default());
}
