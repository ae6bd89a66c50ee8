//! `reprocheck doctor` as a user meets it, with caches of its own and a Hub on the loopback.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use reprocheck::numerics::{kernel::Isa, pairs};

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("doctor").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs the doctor where nothing of the user's own settings is seen, and expects this exit code.
fn doctor(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_reprocheck"));
    command.arg("doctor").args(arguments);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().to_uppercase();
        if name.starts_with("HF_") || name.starts_with("HUGGINGFACE") || name.ends_with("_PROXY") {
            command.env_remove(&*name).env_remove(name.to_lowercase());
        }
    }
    command.env_remove("TRANSFORMERS_OFFLINE").env("NO_PROXY", "127.0.0.1");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!((output.status.code(), text(output.stderr)), (Some(0), String::new()), "{arguments:?}");
    text(output.stdout)
}

/// The value of a row, its lines joined.
#[track_caller]
fn row(out: &str, name: &str) -> String {
    let mut lines = out.lines().skip_while(|line| line.split(' ').next() != Some(name));
    let first = lines.next().unwrap_or_else(|| panic!("no row `{name}` in\n{out}"));
    let more = lines.take_while(|line| line.starts_with(' '));
    let words: Vec<_> =
        std::iter::once(&first[name.len()..]).chain(more).flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// What stands below the table, its lines joined.
fn below(out: &str) -> String {
    let (_, table) = out.split_once("\n\n").unwrap();
    let below: Vec<_> = table.split("\n\n").skip(1).flat_map(str::split_whitespace).collect();
    below.join(" ")
}

/// A Hub that gives this answer to everybody, and counts who asks.
fn hub(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            assert!(request.starts_with("GET /api/"), "{request}");
            lines.take_while(|line| !line.as_ref().unwrap().is_empty()).for_each(drop);
            counter.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answer.split_once('\n').unwrap();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    (address, asked)
}

#[test]
fn the_machine_is_described_and_the_description_fits_a_terminal() {
    let home = folder("described");
    let out = doctor(&["--offline"], &[("HF_HOME", home.to_str().unwrap())]);
    assert!(out.starts_with(concat!("reprocheck ", env!("CARGO_PKG_VERSION"), "\n\n")), "{out}");
    let best = Isa::best().to_string();
    assert_eq!(row(&out, "kernel").split(' ').next(), Some(&*best));
    for isa in Isa::ALL {
        let words: Vec<_> = out.split(|c: char| !c.is_alphanumeric()).collect();
        assert_eq!(words.contains(&&*isa.to_string()), isa.is_available(), "{isa}: {out}");
    }
    assert_eq!(
        row(&out, "self-check"),
        format!("{} products per instruction set, each with the bits of its definition", pairs().len())
    );
    assert_eq!(row(&out, "threads"), thread::available_parallelism().unwrap().to_string());
    if cfg!(target_os = "linux") {
        let memory = row(&out, "memory");
        let mut numbers = memory.split(' ').filter_map(|word| word.parse::<f64>().ok());
        let (total, available) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(0.0 < available && available <= total, "{memory}");
    }
    assert_ne!(row(&out, "features"), "");
    assert_ne!(row(&out, "processor"), "");
    let cache = row(&out, "cache");
    for line in out.lines().filter(|line| !cache.contains(line.trim())) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(below(&out), "");
}

#[test]
fn the_cache_is_where_the_settings_say() {
    let home = folder("cache");
    let hub = home.join("hub");
    let cache = |variables: &[(&str, &str)]| row(&doctor(&["--offline"], variables), "cache");
    let at = home.to_str().unwrap();
    assert_eq!(cache(&[("HF_HOME", at)]), format!("{}: not there yet, made when needed", hub.display()));
    assert!(!hub.exists(), "looking made it");
    fs::create_dir(&hub).unwrap();
    assert_eq!(cache(&[("HF_HOME", at)]), format!("{}: writable", hub.display()));
    assert_eq!(fs::read_dir(&hub).unwrap().count(), 0, "something was left behind");
    assert_eq!(cache(&[("HF_HOME", "/elsewhere"), ("HF_HUB_CACHE", at)]), format!("{at}: writable"));
    assert_eq!(
        cache(&[("XDG_CACHE_HOME", at)]),
        format!("{}: not there yet, made when needed", home.join("huggingface/hub").display())
    );
}

#[test]
fn a_cache_that_cannot_be_written_to_is_named_with_the_way_out() {
    // A file where the folder should be: not even root can write into it.
    let file = folder("unwritable").join("file");
    fs::write(&file, "").unwrap();
    let out = doctor(&["--offline"], &[("HF_HUB_CACHE", file.to_str().unwrap())]);
    assert_eq!(row(&out, "cache"), format!("{}: not usable", file.display()));
    let below = below(&out);
    assert!(below.starts_with(&format!("cannot write to the cache at {}, ", file.display())), "{below}");
    assert!(below.contains("set HF_HUB_CACHE to another"), "{below}");
}

#[test]
fn who_is_offline_does_not_ask() {
    let home = folder("offline");
    let (address, asked) = hub("200 OK\n{\"name\": \"somebody\"}");
    let endpoint = format!("http://{address}");
    let common = [("HF_HOME", home.to_str().unwrap()), ("HF_ENDPOINT", &endpoint)];
    let value = |arguments: &[&str], more: &[(&str, &str)]| {
        row(&doctor(arguments, &[&common[..], more].concat()), "Hub")
    };
    if cfg!(not(feature = "hub")) {
        assert_eq!(value(&[], &[]), "not in this build: models come from folders");
        return;
    }
    assert_eq!(value(&["--offline"], &[]), "not asked, because of --offline");
    for yes in ["1", "true", "YES"] {
        assert_eq!(
            value(&[], &[("HF_HUB_OFFLINE", yes)]),
            "not asked, because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
        );
    }
    assert_eq!(
        value(&[], &[("TRANSFORMERS_OFFLINE", "1")]),
        "not asked, because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    for no in ["0", ""] {
        let value = value(&[], &[("HF_HUB_OFFLINE", no), ("HF_TOKEN", "hf_x")]);
        assert_eq!(value, format!("{endpoint} answers and accepts the token"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[cfg(feature = "hub")]
#[test]
fn a_hub_that_answers_is_within_reach_whatever_it_says() {
    let home = folder("answers");
    for (answer, says) in [
        ("401 Unauthorized\n{}", "answers; no token that it accepts, which only gated models need"),
        ("404 Not Found\n{}", "answers: 404 Not Found"),
        ("503 Service Unavailable\n", "answers: 503 Service Unavailable"),
    ] {
        let (address, asked) = hub(answer);
        let endpoint = format!("http://{address}");
        let out = doctor(&[], &[("HF_HOME", home.to_str().unwrap()), ("HF_ENDPOINT", &endpoint)]);
        let value = row(&out, "Hub");
        assert!(value.starts_with(&format!("{endpoint} {says}")), "{value}");
        assert_eq!((below(&out).as_str(), asked.load(Ordering::SeqCst)), ("", 1), "{answer}");
    }
}

#[cfg(feature = "hub")]
#[test]
fn a_hub_out_of_reach_is_named_with_the_way_out() {
    let home = folder("refused");
    // A port that was free a moment ago refuses.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (portal, _) = hub("200 OK\n<html>Please log in</html>");
    for (endpoint, complaint) in [
        (format!("http://{refused}"), "cannot be reached (Connection refused"),
        (format!("http://{portal}"), "answers, but not as a Hub does: check the network"),
    ] {
        let out = doctor(&[], &[("HF_HOME", home.to_str().unwrap()), ("HF_ENDPOINT", &endpoint)]);
        assert_eq!(row(&out, "Hub"), "not within reach");
        let below = below(&out);
        assert!(below.starts_with(&format!("{endpoint} {complaint}")), "{below}");
        assert!(below.contains("models in folders and in the cache work without it."), "{below}");
    }
    let out = doctor(&[], &[("HF_HOME", home.to_str().unwrap()), ("HF_ENDPOINT", "hugging face")]);
    assert!(
        below(&out).starts_with("\"hugging face\" is not the address of a Hub: set HF_ENDPOINT to"),
        "{out}"
    );
}
