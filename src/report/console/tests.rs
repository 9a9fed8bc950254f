use super::*;
use crate::error::Kind;
use crate::report::finding::{Finding, Severity};
use crate::report::{Change, PhaseRecord, Report};

/// A writer whose content can be read afterwards.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PLAIN: Options =
    Options { format: LogFormat::Text, verbosity: Verbosity::Normal, color: false, terminal: false, github: false };

fn shown(options: Options, events: &[Event<'_>]) -> String {
    let paper = Paper::default();
    let console = Console::new(options, Box::new(paper.clone()));
    events.iter().for_each(|event| console.event(event));
    paper.text()
}

fn finished(phase: Phase, change: Change, detail: &str) -> Event<'_> {
    Event::Finished { phase, change, detail, elapsed: Duration::from_millis(1234) }
}

#[test]
fn a_line_for_each_finished_phase() {
    let events = [
        Event::Started(Phase::Resolve),
        finished(Phase::Resolve, Change::Unchanged, "main is 0123456789ab"),
        Event::Started(Phase::Volume),
        finished(Phase::Volume, Change::Created, "vol-1"),
        finished(Phase::Checkout, Change::Changed, "3 files"),
        Event::Failed { phase: Phase::Snapshot, elapsed: Duration::from_secs(75) },
        Event::Note("look"),
        Event::Warning("beware"),
        Event::Trace { level: "DEBUG", target: "aws", text: "asked\n##[x]" },
    ];
    let expected = "\
= resolve          1.23s  main is 0123456789ab
+ volume           1.23s  vol-1
~ checkout         1.23s  3 files
x snapshot         1m15s  failed
note: look
warning: beware
  DEBUG aws | asked\\n\\x23#[x]
";
    assert_eq!(shown(PLAIN, &events), expected);
    assert_eq!(
        shown(Options { verbosity: Verbosity::Quiet, ..PLAIN }, &events),
        "warning: beware\n  DEBUG aws | asked\\n\\x23#[x]\n"
    );
    let verbose = shown(Options { verbosity: Verbosity::Verbose, ..PLAIN }, &events);
    assert!(verbose.starts_with("> resolve\n= resolve"), "{verbose}");
    assert!(shown(Options { color: true, ..PLAIN }, &events).contains("\x1b[32m+\x1b[0m volume"));
}

#[test]
fn what_others_say_cannot_leave_its_line_or_command_the_runner() {
    let output = |line| Event::Output { phase: Phase::AfterCheckout, line };
    let events = [
        output("::add-mask::x"),
        output("  ##[add-mask]x"),
        output("a\x1b[2Jb\n::error::c"),
        output("10%\r100%\n"),
        finished(Phase::Checkout, Change::Changed, "\n::stop-commands::x"),
    ];
    let github = Options { github: true, ..PLAIN };
    let expected = "\
::group::output of after-checkout
  after-checkout | ::add-mask::x
  after-checkout |   \\x23#[add-mask]x
  after-checkout | a\\u{1b}[2Jb\\n::error::c
  after-checkout | 100%
::endgroup::
~ checkout         1.23s  \\n::stop-commands::x
";
    assert_eq!(shown(github, &events), expected);
    let json = shown(Options { format: LogFormat::Json, ..PLAIN }, &events);
    assert_eq!(json.lines().count(), events.len());
    assert!(json.lines().all(|line| line.starts_with('{') && !line.contains("##")), "{json}");
}

#[test]
fn on_github_a_warning_is_an_annotation() {
    let github = Options { github: true, ..PLAIN };
    let events = [Event::Warning("50% of\nrefs/heads/::add-mask::x"), Event::Note("::add-mask::x")];
    let expected = "::warning title=ebs-bake::50%25 of\\nrefs/heads/::add-mask::x\nnote: ::add-mask::x\n";
    assert_eq!(shown(github, &events), expected);
}

#[test]
fn a_finding_has_its_place_and_on_github_is_beside_that_line() {
    let found =
        |severity, file: &str, line| Finding { severity, file: file.into(), line, message: "there is no role \"db\"".into() };
    let (error, warning) = (found(Severity::Error, "roles/web.rb", Some(3)), found(Severity::Warning, "a,b:c%\n::x::", None));
    let events = [Event::Finding(&error), Event::Finding(&warning)];
    let plain = "error: roles/web.rb:3: there is no role \"db\"\nwarning: a,b:c%\\n::x::: there is no role \"db\"\n";
    assert_eq!(shown(PLAIN, &events), plain);
    assert_eq!(shown(Options { verbosity: Verbosity::Quiet, ..PLAIN }, &events), plain, "it is what went wrong");
    let github = "::error title=ebs-bake,file=roles/web.rb,line=3::roles/web.rb:3: there is no role \"db\"\n\
                  ::warning title=ebs-bake,file=a%2Cb%3Ac%25\\n%3A%3Ax%3A%3A::a,b:c%25\\n::x::: there is no role \"db\"\n";
    assert_eq!(shown(Options { github: true, ..PLAIN }, &events), github);
    let json = shown(Options { format: LogFormat::Json, ..PLAIN }, &events[..1]);
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&object["event"], &object["severity"]), (&"finding".into(), &"error".into()));
    assert_eq!((&object["file"], &object["line"]), (&"roles/web.rb".into(), &3.into()));
    assert_eq!(object["message"], "there is no role \"db\"");
}

#[test]
fn the_git_hosts_chatter_is_for_the_verbose() {
    let chatter = [Event::Output { phase: Phase::Fetch, line: "remote: Counting objects: 100%" }];
    assert_eq!(shown(PLAIN, &chatter), "");
    let verbose = Options { verbosity: Verbosity::Verbose, ..PLAIN };
    assert_eq!(shown(verbose, &chatter), "  fetch | remote: Counting objects: 100%\n");
}

#[test]
fn json_has_an_object_for_each_event() {
    let events = [finished(Phase::LookUp, Change::Unchanged, "none"), Event::Warning("a\nb")];
    let text = shown(Options { format: LogFormat::Json, ..PLAIN }, &events);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!({
        "time": lines[0]["time"], "event": "finished", "phase": "look-up", "change": "unchanged", "detail": "none",
        "seconds": 1.234,
    });
    assert_eq!(lines[0], expected);
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(lines[1]["message"], "a\nb");
}

#[test]
fn a_silent_phase_gives_a_sign_of_life_each_time_it_was_silent_for_long() {
    let paper = Paper::default();
    let console = Console::new(PLAIN, Box::new(paper));
    let mut state = console.shared.lock();
    let start = Instant::now();
    state.track(&Event::Started(Phase::Fetch), start);
    let mut lines = |seconds| state.signs_of_life(start + Duration::from_secs(seconds), LogFormat::Text);
    assert_eq!(lines(19), [""; 0]);
    assert_eq!(lines(20), [". fetch            20.0s  goes on\n"]);
    assert_eq!(lines(39), [""; 0]);
    let progress = Event::Progress { phase: Phase::Fetch, done: 1234, total: Some(50_000), unit: Unit::Files };
    state.track(&progress, start + Duration::from_secs(39));
    let lines = state.signs_of_life(start + Duration::from_secs(41), LogFormat::Text);
    assert_eq!(lines, [". fetch            41.0s  1,234 of 50,000 files\n"]);
    let json = state.signs_of_life(start + Duration::from_secs(61), LogFormat::Json).concat();
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&object["done"], &object["unit"]), (&1234.into(), &"files".into()));
    state.track(&finished(Phase::Fetch, Change::Changed, ""), start);
    assert_eq!(state.signs_of_life(start + Duration::from_secs(600), LogFormat::Text), [""; 0]);
}

#[test]
fn the_report_of_a_run_ends_up_on_paper() {
    let paper = Paper::default();
    let report = Report::new(Arc::new(Console::new(PLAIN, Box::new(paper.clone()))));
    report.phase(Phase::Attach).done(Change::Created, "/dev/loop3");
    drop(report.phase(Phase::Mount));
    let text = paper.text();
    assert!(text.contains("+ attach") && text.contains("/dev/loop3\n") && text.contains("x mount"), "{text}");
}

fn trouble() -> Error {
    let cause = io::Error::other("first line\nsecond\x1b line");
    Error::new(Kind::Git, "cannot fetch 50%\nof it").because(cause).hint("look at it")
}

#[test]
fn errors_are_complete_in_their_first_line() {
    let expected = "\
error: cannot fetch 50%\\nof it
  cause: first line
  cause: second\\u{1b} line
  hint: look at it
";
    assert_eq!(render_error(&trouble(), &PLAIN), expected);
    let github = render_error(&trouble(), &Options { github: true, ..PLAIN });
    assert_eq!(github, format!("{expected}::error title=ebs-bake::cannot fetch 50%25\\nof it%0Alook at it\n"));
    let json = render_error(&trouble(), &Options { format: LogFormat::Json, ..PLAIN });
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&object["kind"], &object["exit-code"]), (&"git".into(), &7.into()));
    assert_eq!(object["causes"][0], "first line\nsecond\u{1b} line");
}

fn color(variables: &[(&str, &str)], choice: ColorChoice, terminal: bool) -> bool {
    let settings = General { color: Some(choice), ..General::default() };
    Options::new(settings, terminal, &variables.iter().copied().collect(), None).color
}

#[test]
fn who_decides_about_colour() {
    let auto = |variables: &[(&str, &str)], terminal| color(variables, ColorChoice::Auto, terminal);
    assert!(auto(&[], true) && !auto(&[], false));
    assert!(!auto(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
    assert!(auto(&[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0")], false), "an empty NO_COLOR says nothing");
    assert!(!auto(&[("CLICOLOR_FORCE", "0"), ("CLICOLOR", "0")], true));
    assert!(!auto(&[("TERM", "dumb")], true));
    assert!(color(&[("NO_COLOR", "1")], ColorChoice::Always, false));
    assert!(!color(&[("CLICOLOR_FORCE", "1")], ColorChoice::Never, true));
}

#[test]
fn the_end_of_a_run() {
    let outputs = crate::report::outputs::example();
    let result = |verbosity| {
        let paper = Paper::default();
        Console::new(Options { verbosity, ..PLAIN }, Box::new(paper.clone())).result(&outputs);
        paper.text()
    };
    let last = "created snap-0123456789abcdef0 of 0123456789ab (main) in 4.25s, 9 blocks of 512 KiB changed\n";
    assert_eq!(result(Verbosity::Normal), last);
    assert_eq!(result(Verbosity::Quiet), "");
    assert_eq!(
        result(Verbosity::Verbose),
        format!("  resolve          0.25s   25 %  unchanged\n  checkout         0.75s   75 %  changed\n{last}")
    );
    let reused = Outputs { reused: true, reference: None, ..outputs };
    assert_eq!(text::result(&reused, false), "reused snap-0123456789abcdef0 of 0123456789ab in 4.25s\n");
    assert_eq!(text::table(&Vec::<PhaseRecord>::new()), "");
}
