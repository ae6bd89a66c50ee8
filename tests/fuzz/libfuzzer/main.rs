//! The reader that `READER` names under libFuzzer, each input held to the memory that it may take.

#![no_main]

#[path = "../readers.rs"]
mod readers;

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

use self::readers::{READERS, Reader};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The last one.
static PANIC: Mutex<String> = Mutex::new(String::new());
static READER: OnceLock<(&Reader, PathBuf)> = OnceLock::new();

fn begin() {
    // Who catches a panic of a library goes on, so a panic is told where nobody has.
    std::panic::set_hook(Box::new(|panic| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string()
    }));
    let name = std::env::var("READER").unwrap_or_default();
    let Some(reader) = READERS.iter().find(|reader| reader.name == name) else {
        let names: Vec<_> = READERS.iter().map(|reader| reader.name).collect();
        eprintln!("set READER to one of {}", names.join(", "));
        std::process::exit(2);
    };
    // Nobody drops what libFuzzer ends: whoever calls it removes the folder for temporary files.
    let folder = tempfile::tempdir().expect("a folder for files").keep();
    // Whatever is made once is no input's.
    (reader.read)(b"", &folder);
    READER.set((reader, folder)).ok().expect("it begins once");
}

fuzz_target!(init: begin(), |bytes: &[u8]| {
    let (reader, folder) = READER.get().expect("it has begun");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    if std::panic::catch_unwind(|| (reader.read)(bytes, folder)).is_err() {
        eprintln!("{}", PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
    let took = MEMORY.peak_usage().saturating_sub(before);
    if took > 2 * bytes.len() + reader.beside {
        eprintln!("{took} bytes of memory for an input of {}", bytes.len());
        std::process::abort();
    }
});
