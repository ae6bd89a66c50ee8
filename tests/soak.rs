//! A run for long: killed at random moments, on a disk that fills up, in a folder that turns read-only, it loses nothing, takes no
//! more memory than at its beginning, and comes to the report of a run that was left alone.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use reprocheck::numerics::random::Stream;
use tempfile::TempDir;

use crate::serving::files;

/// So many cells: five precisions times this many orders, batches and numbers of threads.
struct Size {
    orders: usize,
    batches: usize,
    threads: usize,
    items: usize,
}

impl Size {
    fn cells(&self) -> usize {
        5 * self.orders * self.batches * self.threads
    }

    fn matrix(&self) -> String {
        let orders = [
            "sequential",
            "pairwise",
            "reversed",
            "lanes:4",
            "lanes:8",
            "lanes:16",
            "split-k:2",
            "split-k:4",
            "blocks:32",
            "blocks:64",
        ];
        let numbers = |most: usize| (1..=most).collect::<Vec<_>>();
        format!(
            "suites = [\"carry_chain\"]\nitems = {}\n[generate]\nmax-new-tokens = 2\n\
             [reference]\nprecision = \"fp32\"\norder = \"sequential\"\n\
             [matrix]\nprecision = [\"fp32\", \"bf16\", \"fp16\", \"layercast\", \"cast:e5m2\"]\norder = {:?}\nbatch = {:?}\n\
             threads = {:?}\n[[gate]]\nname = \"nothing but precision and order matters\"\nvary = [\"batch\", \"threads\"]\n\
             require = \"bits\"\n",
            self.items,
            &orders[..self.orders],
            numbers(self.batches),
            numbers(self.threads),
        )
    }
}

/// Root may write whatever its permissions say, so that a run for which they count is that of another user.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A folder in memory with a size of its own, which is gone when it is dropped.
struct Disk(TempDir);

impl Disk {
    /// Nothing where this process may not mount one.
    fn new(size: u64) -> Option<Disk> {
        let disk = Disk(tempfile::tempdir().unwrap());
        let options = format!("size={size},mode=777");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(disk.0.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(disk)
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(self.0.path());
        assert!(mount.status().unwrap().success(), "{options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

/// A folder in which the program runs as a user for whom permissions count.
struct Place<'a> {
    folder: &'a Path,
    program: &'a Path,
}

impl Place<'_> {
    fn new<'a>(folder: &'a Path, program: &'a Path, matrix: &str) -> Place<'a> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(folder.join("m.toml"), matrix).unwrap();
        Place { folder, program }
    }

    fn out(&self) -> PathBuf {
        self.folder.join("out")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(["run", "--model", "qwen", "--matrix", "m.toml", "--out", "out", "--resume"]);
        command.current_dir(self.folder).env_remove("CI").stdin(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn spawn(&self) -> Child {
        self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// It cannot go on, and says of which file, why, and what to do.
    #[track_caller]
    fn stops(&self, child: Output, why: &str, way_out: &str) {
        let err = String::from_utf8(child.stderr).unwrap();
        assert_eq!(child.status.code(), Some(4), "{err}");
        let last = err.lines().last().unwrap();
        assert!(last.starts_with("error: cannot write ") && last.contains("out"), "{last}");
        for part in [why, way_out, "or choose another place"] {
            assert!(last.contains(part), "{part}: {last}");
        }
    }

    /// How many cells are done.
    fn done(&self) -> usize {
        let names = fs::read_dir(self.out().join("cells")).into_iter().flatten();
        names
            .filter(|entry| {
                entry.as_ref().is_ok_and(|entry| entry.path().extension() == Some("json".as_ref()))
            })
            .count()
    }

    /// What does not tell the time, file by file.
    fn left(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let all = files(&self.out()).into_iter();
        let all =
            all.map(|path| (path.strip_prefix(self.out()).unwrap().to_owned(), fs::read(path).unwrap()));
        all.filter(|(name, _)| !name.starts_with("cells")).collect()
    }
}

/// The most memory that a process ever had, in KiB; nothing once it has ended.
fn memory(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn soak(size: &Size, kills: usize) {
    let matrix = size.matrix();
    let cells = size.cells();

    // The program may lie where root alone goes.
    let programs = tempfile::tempdir().unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = programs.path().join("reprocheck");
    fs::copy(env!("CARGO_BIN_EXE_reprocheck"), &program).unwrap();

    // A run that is left alone, and the memory that it takes.
    let folder = tempfile::tempdir().unwrap();
    let alone = Place::new(folder.path(), &program, &matrix);
    let start = Instant::now();
    let mut run = alone.spawn();
    let (mut early, mut late) = (None, None);
    let code = loop {
        // First the memory: what is done by then is more.
        let took = memory(&run);
        match alone.done() {
            done if done < cells / 10 => {}
            _ if alone.out().join("report.json").exists() => {}
            done if done < cells => {
                early = early.or(took);
                late = took.or(late);
            }
            _ => {}
        }
        if let Some(status) = run.try_wait().unwrap() {
            break status.code();
        }
        thread::sleep(Duration::from_millis(5));
    };
    let takes = start.elapsed();
    assert_eq!(code, Some(0));
    let whole = alone.left();
    assert!(whole.contains_key(Path::new("report.json")) && alone.done() == cells);
    let (early, late) = (early.expect("it has been seen"), late.expect("it has been seen"));
    println!(
        "{cells} cells of {} items: {:.0} s alone; {early} KiB after a tenth, {late} KiB at the end",
        size.items,
        takes.as_secs_f64()
    );
    // A few MiB: what an allocator keeps. Of 1,000 cells it would be 8 KiB each.
    assert!(late < early + 8 * 1024, "{early} KiB after a tenth of the cells, {late} KiB at the end");

    // The same on a disk that is full again and again.
    let took: u64 = files(&alone.out()).iter().map(|path| path.metadata().unwrap().blocks() * 512).sum();
    let disk = Disk::new(took / 6);
    let other = tempfile::tempdir().unwrap();
    let folder = disk.as_ref().map_or(other.path(), |disk| disk.0.path());
    let place = Place::new(folder, &program, &matrix);
    let mut stream = Stream::new(1000, 0);
    let mut killed = 0;
    let mut kill = |place: &Place<'_>, rounds: usize| {
        for _ in 0..rounds {
            let mut run = place.spawn();
            thread::sleep(takes.mul_f64(stream.unit() / kills as f64));
            run.kill().unwrap();
            killed += usize::from(run.wait().unwrap().signal().is_some());
        }
    };
    match &disk {
        Some(disk) => {
            for sixth in 1..=3 {
                disk.remount(&format!("size={}", took * sixth / 6));
                kill(&place, kills / 8);
                let before = place.done();
                place.stops(place.command().output().unwrap(), "No space left on device", "make room there");
                assert!(place.done() >= before && place.done() < cells);
            }
            disk.remount("ro");
            place.stops(place.command().output().unwrap(), "Read-only file system", "let it be written");
            disk.remount(&format!("rw,size={}", 3 * took));
        }
        None => {
            println!("NOT TRIED: a disk that is full, because nothing can be mounted here: run it as root")
        }
    }

    // It turns read-only while it runs.
    let folders = [place.out(), place.out().join("cells"), place.out().join("traces")];
    let all_may = |mode| {
        for folder in folders.iter().filter(|folder| folder.exists()) {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let before = place.done();
    let run = place.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while place.done() <= before {
        thread::sleep(Duration::from_millis(2));
    }
    all_may(0o555);
    place.stops(run.wait_with_output().unwrap(), "Permission denied", "let it be written");
    place.stops(place.command().output().unwrap(), "Permission denied", "let it be written");
    all_may(0o755);
    assert!(place.done() > before && place.done() < cells);

    kill(&place, kills / 2);
    let output = place.command().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let found = place.left();
    let names = |left: &BTreeMap<PathBuf, _>| left.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&whole));
    for (name, bytes) in &whole {
        assert!(found[name] == *bytes, "{} is another", name.display());
    }
    assert!(killed >= kills / 4, "{killed} of {kills} were killed before their end");
    println!("killed {killed} times of {kills}; {} files are the same, byte for byte", whole.len());
}

#[test]
fn a_run_that_is_killed_on_a_disk_that_is_full_in_a_folder_that_turns_read_only_loses_nothing() {
    soak(&Size { orders: 1, batches: 2, threads: 2, items: 4 }, 16);
}

#[test]
#[ignore = "takes minutes: `cargo test --release --test all -- --ignored --nocapture soak::`"]
fn a_thousand_cells_and_a_hundred_thousand_items_are_killed_a_hundred_times_and_lose_nothing() {
    soak(&Size { orders: 10, batches: 10, threads: 2, items: 100 }, 96);
}
