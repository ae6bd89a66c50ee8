//! A server that is started here: a process of this program keeps it, and ends it with all of its children whenever the
//! one that asked for it ends, however that comes about.
//!
//! The keeper reads what to start from its standard input, and takes the end of that for the end of whoever asked: a pipe is
//! closed even for a process that is killed. Both sides write JSON, a line for each message.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{self, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde::{Deserialize, Serialize};

use super::dialect::clipped;
use crate::engine::EngineError;

/// The argument by which the program becomes the keeper.
pub const ARGUMENT: &str = "server-keeper";

/// What is to be started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The program, and its arguments.
    pub(super) command: Vec<String>,
    /// Variables of the environment beside our own.
    pub(super) env: BTreeMap<String, String>,
    /// Where all that it says goes.
    pub(super) log: PathBuf,
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// It runs.
    Started,
    /// It does not, and why.
    Failed(String),
    /// It has ended, and how.
    Ended(String),
}

/// A server, seen from the process that asked for it.
pub(super) struct Process {
    keeper: process::Child,
    input: Option<ChildStdin>,
    /// How the server ended, once it has.
    ended: Arc<Mutex<Option<String>>>,
    log: PathBuf,
    /// Where its part of the log begins.
    begin: u64,
}

impl Process {
    /// Starts a server by way of `program`, which must be this one.
    pub(super) fn start(program: &Path, start: &Start) -> Result<Process, EngineError> {
        let environment = |problem: &dyn std::fmt::Display| {
            let command = start.command.first().map_or("", String::as_str);
            EngineError::Environment(format!(
                "cannot start `{command}` ({problem}): see that it is there and may be run"
            ))
        };
        let begin = fs::metadata(&start.log).map_or(0, |about| about.len());
        let mut command = Command::new(program);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // What a terminal sends to us is not for it: it hears of our end.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut keeper = command.spawn().map_err(|error| environment(&error))?;
        let (Some(mut input), Some(output)) = (keeper.stdin.take(), keeper.stdout.take()) else {
            unreachable!("both are piped");
        };
        let mut output = BufReader::new(output);
        let asked = write_line(&mut input, start).and_then(|()| read_line(&mut output));
        let ended = Arc::new(Mutex::new(None));
        let server =
            Process { keeper, input: Some(input), ended: ended.clone(), log: start.log.clone(), begin };
        match asked {
            Ok(Some(Said::Started)) => {}
            Ok(Some(Said::Failed(problem) | Said::Ended(problem))) => return Err(environment(&problem)),
            Ok(None) => return Err(environment(&"its keeper has ended")),
            Err(error) => return Err(environment(&error)),
        }
        thread::spawn(move || {
            let how = match read_line(&mut output) {
                Ok(Some(Said::Ended(how))) => how,
                _ => "its keeper has ended".to_owned(),
            };
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        });
        Ok(server)
    }

    /// How it ended and what it said last, if it has ended. `hide` takes out of a text what nobody is to see.
    pub(super) fn ended(&self, hide: &dyn Fn(&str) -> String) -> Option<String> {
        let how = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(format!("ended ({}){}", hide(&how), self.last_words(hide)))
    }

    /// The end of what it said, and where all of it is.
    pub(super) fn last_words(&self, hide: &dyn Fn(&str) -> String) -> String {
        const MOST: usize = 6;
        let log = self.log.display();
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(self.begin as usize..).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last: Vec<_> =
            lines[lines.len().saturating_sub(MOST)..].iter().map(|line| clipped(&hide(line))).collect();
        if last.is_empty() {
            return format!(", saying nothing in {log}");
        }
        format!(", saying `{}` at the end of {log}", last.join(" / "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The keeper hears of it, and waits until all have ended.
        self.input = None;
        let _ = self.keeper.wait();
    }
}

/// Keeps a server for `Process` until its side is closed, or until the server has ended. `open` opens the file for what
/// the server says.
///
/// # Errors
///
/// When the other side cannot be written.
#[cfg(unix)]
pub fn keep(
    mut input: impl BufRead + Send + 'static,
    mut output: impl Write,
    open: impl FnOnce(&Path) -> io::Result<File>,
) -> io::Result<()> {
    use std::{
        os::unix::process::CommandExt as _,
        sync::atomic::{AtomicBool, Ordering},
        time::{Duration, Instant},
    };

    use rustix::process::{Pid, Signal, kill_process_group};
    use signal_hook::{consts, flag};

    /// How often is looked.
    const PACE: Duration = Duration::from_millis(20);
    /// For a server to put away what it has in hand.
    const GRACE: Duration = Duration::from_secs(10);

    let Some(start) = read_line::<Start>(&mut input)? else { return Ok(()) };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGTERM, consts::SIGINT, consts::SIGHUP] {
        flag::register(signal, stop.clone())?;
    }
    let spawn = || {
        let log = open(&start.log)?;
        let (program, arguments) = start.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).envs(&start.env).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log).process_group(0).spawn()
    };
    let mut server = match spawn() {
        Ok(server) => server,
        Err(error) => return write_line(&mut output, &Said::Failed(error.to_string())),
    };
    let group = Pid::from_child(&server);
    // It may be gone already, and then nobody needs to know.
    let tell = |signal: Signal| {
        let _ = kill_process_group(group, signal);
    };
    let told = write_line(&mut output, &Said::Started);
    let closed = stop.clone();
    thread::spawn(move || {
        // Nothing more comes, so this ends with whoever asked.
        let _ = io::copy(&mut input, &mut io::sink());
        closed.store(true, Ordering::Relaxed);
    });
    let mut asked: Option<Instant> = None;
    let how = loop {
        match server.try_wait() {
            Ok(Some(status)) => break status.to_string(),
            Ok(None) => {}
            Err(error) => break error.to_string(),
        }
        match asked {
            None if told.is_err() || stop.load(Ordering::Relaxed) => {
                tell(Signal::TERM);
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > GRACE => tell(Signal::KILL),
            _ => {}
        }
        thread::sleep(PACE);
    };
    // Whatever it has started and left behind.
    tell(Signal::KILL);
    write_line(&mut output, &Said::Ended(how))
}

/// Where processes have no groups none is started.
///
/// # Errors
///
/// When the other side cannot be written.
#[cfg(not(unix))]
pub fn keep(
    _: impl BufRead + Send + 'static,
    mut output: impl Write,
    _: impl FnOnce(&Path) -> io::Result<File>,
) -> io::Result<()> {
    let sentence = "servers are started on Linux and macOS: start it yourself, and name its `url`";
    write_line(&mut output, &Said::Failed(sentence.to_owned()))
}

fn write_line(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

fn read_line<M: serde::de::DeserializeOwned>(input: &mut impl BufRead) -> io::Result<Option<M>> {
    let mut line = Vec::new();
    match input.read_until(b'\n', &mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_slice(&line)?)),
    }
}
