//! The stock engine in a process of its own: candle fixes its thread pools at their first use, by the environment.
//!
//! Both sides write JSON, a line for each message.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{self, ChildStdin, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Engine, EngineError, Observer, Prompt, Request,
    candle::{self, Candle, Pools},
    environment::Environment,
};
use crate::{
    cell::{Cell, Compute, Stock},
    model::Checkpoint,
    trace::{Sample, Sight},
};

/// The argument by which the program becomes the other side.
pub const ARGUMENT: &str = "engine-worker";

/// What the parent says: first what to open, then one request after the other.
#[derive(Serialize, Deserialize)]
struct Open {
    model: String,
    cell: Cell,
}

#[derive(Serialize, Deserialize)]
struct Generate {
    prompts: Vec<Prompt>,
    request: Request,
    wants_logits: bool,
}

/// What the child says.
#[derive(Serialize, Deserialize)]
enum Answer {
    Opened(Pools),
    /// As bits, for JSON knows no infinity.
    Logits {
        item: u64,
        read: usize,
        bits: Vec<u32>,
    },
    Chose(usize),
    Finished(Sample),
    Done,
    Failed(EngineError),
}

/// The stock engine, seen from the process that asks.
pub struct Child {
    stock: Stock,
    process: process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    complaints: Option<JoinHandle<VecDeque<String>>>,
    pools: Pools,
}

impl Child {
    /// Starts `program`, which must be this one, and loads the model in it.
    ///
    /// # Errors
    ///
    /// When the program cannot be started, or for what [`Candle::open`] refuses there.
    pub fn open(program: &Path, model: &str, stock: Stock) -> Result<Child, EngineError> {
        let threads = stock.threads.to_string();
        let mut process = Command::new(program)
            .arg(ARGUMENT)
            .env("CANDLE_NUM_THREADS", &threads)
            .env("RAYON_NUM_THREADS", &threads)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let program = program.display();
                EngineError::Environment(format!(
                    "{}: cannot start {program} ({error}): see that it may be run, and that no limit on processes \
                     is reached",
                    stock
                ))
            })?;
        let (Some(input), Some(output), Some(complaints)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            unreachable!("all three are piped");
        };
        let complaints = Some(std::thread::spawn(|| last_lines(complaints)));
        let output = BufReader::new(output);
        let pools = Pools { gemm: 0, rayon: 0, own: 0 };
        let mut child = Child { stock, process, input, output, complaints, pools };
        child.ask(&Open {
            model: model.to_owned(),
            cell: Cell { compute: Compute::Candle(stock), ..Cell::default() },
        })?;
        match child.answer()? {
            Answer::Opened(pools) => child.pools = pools,
            Answer::Failed(error) => return Err(error),
            _ => return Err(child.strange()),
        }
        Ok(child)
    }

    /// How many threads candle really has there.
    pub fn pools(&self) -> Pools {
        self.pools
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn ask(&mut self, question: &impl Serialize) -> Result<(), EngineError> {
        write_line(&mut self.input, question).map_err(|_| self.ended())
    }

    fn answer(&mut self) -> Result<Answer, EngineError> {
        match read_line(&mut self.output) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.ended()),
            // Bytes that are no message may be its last as well.
            Err(_) => Err(self.strange()),
        }
    }

    /// Says how it ended. What is written to stderr ends with the process, so nothing waits for long.
    fn ended(&mut self) -> EngineError {
        let how = match self.process.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let complaints = self.complaints.take().and_then(|complaints| complaints.join().ok());
        let complaints = complaints.filter(|lines| !lines.is_empty());
        let said = complaints.map_or_else(String::new, |lines| {
            format!(", saying `{}`", lines.into_iter().collect::<Vec<_>>().join(" / "))
        });
        EngineError::Environment(format!(
            "{}: the process that runs candle ended too early ({how}){said}: try again, with a smaller batch if memory \
             was short",
            self.stock
        ))
    }

    fn strange(&mut self) -> EngineError {
        EngineError::Environment(format!(
            "{}: the process that runs candle does not answer as it should: start it from the same build",
            self.stock
        ))
    }
}

impl Engine for Child {
    fn about(&self) -> Environment {
        candle::environment(self.stock)
    }

    fn sight(&self) -> Sight {
        Sight::Logits
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let wants_logits = observer.wants_logits();
        self.ask(&Generate { prompts: prompts.to_vec(), request: request.clone(), wants_logits })?;
        loop {
            match self.answer()? {
                Answer::Logits { item, read, bits } => {
                    let logits: Vec<_> = bits.into_iter().map(f32::from_bits).collect();
                    observer.logits(item, read, &logits);
                }
                Answer::Chose(tokens) => observer.chose(tokens),
                Answer::Finished(sample) => observer.finished(sample),
                Answer::Done => return Ok(()),
                Answer::Failed(error) => return Err(error),
                Answer::Opened(_) => return Err(self.strange()),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It holds nothing that is not here as well. If it has ended before, both say so and nobody needs to know.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers on behalf of [`Child`] until its side is closed.
///
/// # Errors
///
/// When the other side cannot be read or written.
pub fn serve(
    mut input: impl BufRead,
    mut output: impl Write + Send,
    open: impl FnOnce(&str) -> Result<Checkpoint, EngineError>,
) -> io::Result<()> {
    let Some(question) = read_line::<Open>(&mut input)? else { return Ok(()) };
    let Compute::Candle(stock) = question.cell.compute else {
        let sentence = format!("{} is not a cell of candle's: ask it from the same build", question.cell);
        return write_line(&mut output, &Answer::Failed(EngineError::Unsupported(sentence)));
    };
    let opened = open(&question.model);
    let engine = opened.as_ref().map_err(Clone::clone);
    let mut engine = match engine.and_then(|checkpoint| Candle::open(checkpoint, stock)) {
        Ok(engine) => engine,
        Err(error) => return write_line(&mut output, &Answer::Failed(error)),
    };
    write_line(&mut output, &Answer::Opened(engine.pools()))?;
    while let Some(Generate { prompts, request, wants_logits }) = read_line(&mut input)? {
        let mut teller = Teller { output: &mut output, wants_logits, told: Ok(()) };
        let end = match engine.generate(&prompts, &request, &mut teller) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(error),
        };
        teller.told?;
        write_line(&mut output, &end)?;
    }
    Ok(())
}

/// Tells the parent what it sees.
struct Teller<W> {
    output: W,
    wants_logits: bool,
    told: io::Result<()>,
}

impl<W: Write> Teller<W> {
    fn tell(&mut self, answer: &Answer) {
        if self.told.is_ok() {
            self.told = write_line(&mut self.output, answer);
        }
    }
}

impl<W: Write + Send> Observer for Teller<W> {
    fn finished(&mut self, sample: Sample) {
        self.tell(&Answer::Finished(sample));
    }

    fn chose(&mut self, tokens: usize) {
        self.tell(&Answer::Chose(tokens));
    }

    fn wants_logits(&self) -> bool {
        self.wants_logits
    }

    fn logits(&mut self, item: u64, read: usize, logits: &[f32]) {
        let bits = logits.iter().map(|logit| logit.to_bits()).collect();
        self.tell(&Answer::Logits { item, read, bits });
    }
}

fn write_line(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

fn read_line<M: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<Option<M>> {
    let mut line = Vec::new();
    match input.read_until(b'\n', &mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_slice(&line)?)),
    }
}

/// The last of what somebody says, for a sentence.
fn last_lines(input: impl io::Read) -> VecDeque<String> {
    const MOST: usize = 4;
    let mut input = BufReader::new(input);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while matches!(input.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if !text.is_empty() {
            lines.push_back(text);
        }
        if lines.len() > MOST {
            lines.pop_front();
        }
        line.clear();
    }
    lines
}
