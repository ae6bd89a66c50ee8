//! The servers that a matrix file names, and the axes that it declares for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Reader, text};
use crate::{
    cell::{
        Axis, Cell, Compute, EngineName, Name, Setting,
        server::{is_axis, is_word},
    },
    engine::server::{Piece, Place, Server, check_address, dialect, pieces},
    name::{did_you_mean, nearest},
    plan::shape::{self, PLACEHOLDERS, all_of},
};

/// For an answer, where nothing is said.
const TIMEOUT: u64 = 300;

/// The tables of a file that each say what a server is.
fn engines<'v, 'a>(file: &'v DeTable<'a>) -> impl Iterator<Item = (&'v str, Range<usize>, &'v DeTable<'a>)> {
    let engines = file.get("engine").and_then(|engines| engines.get_ref().as_table());
    engines.into_iter().flat_map(|engines| engines.iter()).filter_map(|(name, engine)| {
        Some((name.get_ref().as_ref(), name.span(), engine.get_ref().as_table()?))
    })
}

/// The axes that a file declares, whatever else is right or wrong in it, in the order of their names.
pub(super) fn declared(file: &DeTable<'_>) -> Vec<Name> {
    let axes = engines(file).filter_map(|(_, _, engine)| engine.get("axes")?.get_ref().as_table());
    let names = axes.flat_map(|axes| axes.iter()).map(|(name, _)| name.get_ref().as_ref());
    let names: BTreeSet<Name> =
        names.filter(|name| is_axis(name) && Axis::named(name).is_none()).map(Name::new).collect();
    names.into_iter().collect()
}

impl Reader<'_, '_> {
    /// What the file says of servers.
    pub(super) fn servers(&mut self) -> BTreeMap<Name, Server> {
        let mut servers = BTreeMap::new();
        for (name, span, table) in engines(self.table) {
            if !is_word(name) {
                let sentence = format!(
                    "`{name}` is not a name for a server: write it in letters, digits, `.`, `_` and `-`"
                );
                self.problems.add(span, sentence);
            } else if let Some(server) = self.server(name, span, table) {
                servers.insert(Name::new(name), server);
            }
        }
        servers
    }

    fn server(&mut self, name: &str, span: Range<usize>, table: &DeTable<'_>) -> Option<Server> {
        let before = self.problems.count();
        let at = |key: &str| table.get(key).map_or(span.clone(), Spanned::span);
        let Some(dialect) = table.get("dialect").and_then(text).and_then(dialect::named) else {
            let sentence =
                format!("`engine.{name}` has no `dialect`: write {}", all_of("one of", dialect::NAMES));
            self.problems.add(span, sentence);
            return None;
        };
        let url = table.get("url").and_then(text);
        let command = table.get("command").and_then(|command| command.get_ref().as_array());
        let command: Option<Vec<(Range<usize>, String)>> = command.map(|command| {
            let arguments =
                command.iter().filter_map(|argument| Some((argument.span(), text(argument)?.to_owned())));
            arguments.collect()
        });
        let axes = axes(table);
        let place = match (url, command) {
            (Some(url), None) => {
                if let Err(sentence) = check_address(url) {
                    self.problems.add(at("url"), sentence);
                }
                for key in ["axes", "env"].into_iter().filter(|key| table.contains_key(*key)) {
                    let sentence = format!(
                        "`{key}` says how a server is started, and this one is there already: take it out, or write a \
                         `command`"
                    );
                    self.problems.add(at(key), sentence);
                }
                Place::Url(url.to_owned())
            }
            (None, Some(command)) => {
                self.check_command(&command, &axes, at("axes"), at("command"));
                Place::Command(command.into_iter().map(|(_, argument)| argument).collect())
            }
            (Some(_), Some(_)) => {
                self.problems.add(
                    at("url"),
                    "a server is there (`url`) or is started (`command`): take one of them out",
                );
                return None;
            }
            (None, None) => {
                let sentence = format!(
                    "`engine.{name}` is nowhere: write its `url`, or the `command` that starts it, such as [\"llama-server\", \
                     \"-m\", \"{{model}}\", \"--port\", \"{{port}}\"]"
                );
                self.problems.add(span, sentence);
                return None;
            }
        };
        let ready = table.get("ready").and_then(text).unwrap_or(dialect.ready);
        if !ready.starts_with('/') {
            self.problems
                .add(at("ready"), format!("`{ready}` is not a path: write one that begins with `/`"));
        }
        if !dialect.names_its_model() && !table.contains_key("model") {
            let sentence = format!("`engine.{name}` is asked for its model by name: write `model`");
            self.problems.add(span.clone(), sentence);
        }
        let env = table.get("env").and_then(|env| env.get_ref().as_table());
        let env = env.into_iter().flat_map(|env| env.iter());
        let env = env.filter_map(|(name, value)| Some((name.get_ref().to_string(), text(value)?.to_owned())));
        let timeout = table.get("timeout").and_then(|timeout| shape::count(timeout.get_ref()));
        (self.problems.count() == before).then(|| Server {
            dialect,
            place,
            ready: ready.to_owned(),
            env: env.collect(),
            timeout: Duration::from_secs(timeout.unwrap_or(TIMEOUT)),
            model: table.get("model").and_then(text).map(str::to_owned),
            key_env: table.get("key-env").and_then(text).map(str::to_owned),
            axes,
        })
    }

    /// Every placeholder must stand for something, and every axis must move something.
    fn check_command(
        &mut self,
        command: &[(Range<usize>, String)],
        axes: &BTreeMap<Name, Vec<(Name, Vec<String>)>>,
        of_axes: Range<usize>,
        of_command: Range<usize>,
    ) {
        let mut used = BTreeSet::new();
        for (span, argument) in command {
            let pieces = pieces(argument);
            for piece in &pieces {
                let Piece::Placeholder(word) = *piece else { continue };
                let words = axes.get(&Name::new(word));
                if words.is_none() && !PLACEHOLDERS.contains(&word) {
                    let names: Vec<_> =
                        PLACEHOLDERS.iter().copied().chain(axes.keys().map(|axis| axis.as_str())).collect();
                    let near = did_you_mean(nearest(word, names.iter().copied()));
                    let sentence =
                        format!("`{{{word}}}` stands for nothing: {near}{}", all_of("there are", &names));
                    self.problems.add(span.clone(), sentence);
                }
                if pieces.len() > 1 && words.is_some_and(|words| words.iter().any(|(_, all)| all.len() != 1))
                {
                    let sentence = format!(
                        "`{{{word}}}` stands for several arguments: let it be an argument of its own"
                    );
                    self.problems.add(span.clone(), sentence);
                }
                used.insert(word.to_owned());
            }
        }
        if !used.contains("port") {
            let sentence =
                "a server that is started here is told where to listen: let {port} come up in its command";
            self.problems.add(of_command, sentence);
        }
        for axis in axes.keys().filter(|axis| !used.contains(axis.as_str())) {
            let sentence = format!("`{axis}` would change nothing: let {{{axis}}} come up in the command");
            self.problems.add(of_axes.clone(), sentence);
        }
    }

    /// The settings that every combination of a server's own axes is made of: one of none where it has no axes, and none where
    /// there are more than that.
    pub(super) fn combinations(&self, server: Name, most: usize) -> Option<Vec<Vec<Setting>>> {
        let mut all = vec![Vec::new()];
        for (axis, words) in self.servers.get(&server).into_iter().flat_map(|server| &server.axes) {
            if all.len().saturating_mul(words.len()) > most {
                return None;
            }
            let longer = |settings: &Vec<Setting>| {
                let with = |(word, _): &(Name, Vec<String>)| {
                    [&settings[..], &[Setting::Server(*axis, *word)]].concat()
                };
                words.iter().map(with).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        Some(all)
    }

    /// The same cell with a setting on each axis of its server, and on no other one: the first where nothing is said.
    pub(super) fn settled(&mut self, cell: Cell, span: &Range<usize>) -> Cell {
        let Compute::Server(served) = cell.compute else { return cell };
        let mut settings = vec![Setting::Engine(EngineName::Lab), Setting::Engine(cell.compute.engine())];
        let Some(server) = self.servers.get(&served.server) else { return cell };
        for (axis, words) in &server.axes {
            let given = served.settings.get(*axis);
            let word = given.or(words.first().map(|(word, _)| *word));
            if given.is_some_and(|given| words.iter().all(|(word, _)| *word != given)) {
                let names: Vec<_> = words.iter().map(|(word, _)| word.as_str()).collect();
                let given = given.map_or("", Name::as_str);
                let sentence = format!("`{axis}` is never `{given}`: {}", all_of("there are", &names));
                self.problems.add(span.clone(), sentence);
            }
            settings.extend(word.map(|word| Setting::Server(*axis, word)));
        }
        cell.with(settings).unwrap_or(cell)
    }
}

/// The axes of a server, each with its words and with the arguments that they stand for.
fn axes(table: &DeTable<'_>) -> BTreeMap<Name, Vec<(Name, Vec<String>)>> {
    let axes = table.get("axes").and_then(|axes| axes.get_ref().as_table());
    let words = |settings: &Spanned<DeValue<'_>>| {
        let words = shape::declared(settings).into_iter();
        words.map(|word| (Name::new(&word.text), word.arguments)).collect()
    };
    axes.into_iter()
        .flat_map(|axes| axes.iter())
        .map(|(axis, settings)| (Name::new(axis.get_ref().as_ref()), words(settings)))
        .collect()
}
