//! When a sample ends, and what its text is: the same rules for every engine.

use super::{EngineError, Prompt, Request};
use crate::trace::Finish;

/// Turns tokens into text, bytes that are no UTF-8 into U+FFFD.
pub type Decode<'a> = dyn Fn(&[u32]) -> String + 'a;

/// What ends the samples of one request.
pub struct Endings<'a> {
    request: &'a Request,
    decode: Option<&'a Decode<'a>>,
    /// How much text a window keeps at least: more than any stop string needs.
    kept: usize,
}

impl<'a> Endings<'a> {
    /// Without `decode` every text is empty.
    ///
    /// # Errors
    ///
    /// When there are stop strings and nothing that could find them, or when one is empty.
    pub fn new(request: &'a Request, decode: Option<&'a Decode<'a>>) -> Result<Endings<'a>, EngineError> {
        let stop_strings = &request.stop_strings;
        if stop_strings.iter().any(String::is_empty) {
            let sentence = "an empty stop string would end every sample at once: leave it out";
            return Err(EngineError::Unsupported(sentence.to_owned()));
        }
        if decode.is_none() && !stop_strings.is_empty() {
            let sentence = "stop strings need the model's tokenizer, and it has none: use stop tokens";
            return Err(EngineError::Unsupported(sentence.to_owned()));
        }
        // A character more, so that a cut through one at the beginning of a window harms no stop string.
        let kept = stop_strings.iter().map(String::len).max().unwrap_or(0) + char::MAX_LEN_UTF8;
        Ok(Endings { request, decode, kept })
    }

    /// Before the first token of this prompt's sample.
    pub fn begin<'s>(&'s self, prompt: &'s Prompt) -> Ending<'s> {
        let replay = prompt.replay.as_deref();
        let finish = match replay {
            Some([]) => Some(Finish::Replayed),
            None if self.request.max_new_tokens == 0 => Some(Finish::Length),
            _ => None,
        };
        Ending { endings: self, replay, tokens: Vec::new(), window: 0, next_window: None, finish }
    }

    /// The text up to the first stop token or stop string.
    fn text(&self, tokens: &[u32]) -> String {
        let Some(decode) = self.decode else { return String::new() };
        let end = tokens.iter().position(|token| self.request.stop_tokens.contains(token));
        let mut text = decode(&tokens[..end.unwrap_or(tokens.len())]);
        if let Some(end) = self.stop_string(&text) {
            text.truncate(end);
        }
        text
    }

    /// Where the first stop string begins.
    fn stop_string(&self, text: &str) -> Option<usize> {
        self.request.stop_strings.iter().filter_map(|stop| text.find(stop)).min()
    }
}

/// How far one sample is from its end.
pub struct Ending<'a> {
    endings: &'a Endings<'a>,
    replay: Option<&'a [u32]>,
    tokens: Vec<u32>,
    /// The first token of those whose text is searched: all text again for every token would cost a square.
    window: usize,
    /// Where the window will begin once enough text follows there.
    next_window: Option<usize>,
    finish: Option<Finish>,
}

impl Ending<'_> {
    /// Why the sample has ended, if it has: one of no tokens at once.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The token that is given for this place, where a text is replayed.
    pub fn given(&self) -> Option<u32> {
        self.replay.and_then(|replay| replay.get(self.tokens.len()).copied())
    }

    /// Takes the next token. A replay goes on through whatever would end a sample.
    pub fn push(&mut self, token: u32) -> Option<Finish> {
        let request = self.endings.request;
        self.tokens.push(token);
        self.finish = if let Some(replay) = self.replay {
            (self.tokens.len() >= replay.len()).then_some(Finish::Replayed)
        } else if request.stop_tokens.contains(&token) || self.meets_a_stop_string() {
            Some(Finish::Stop)
        } else {
            (self.tokens.len() >= request.max_new_tokens).then_some(Finish::Length)
        };
        self.finish
    }

    /// The text of the tokens so far, up to the first stop token or stop string.
    pub fn text(&self) -> String {
        self.endings.text(&self.tokens)
    }

    fn meets_a_stop_string(&mut self) -> bool {
        let (endings, tokens) = (self.endings, &self.tokens);
        let Some(decode) = endings.decode.filter(|_| !endings.request.stop_strings.is_empty()) else {
            return false;
        };
        let text = decode(&tokens[self.window..]);
        // The bytes of a character that is not whole yet are no text yet.
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        // The text of a part may differ from the part of the text, so the whole has the last word.
        if endings.stop_string(whole).is_some() && endings.stop_string(&decode(tokens)).is_some() {
            return true;
        }
        match self.next_window {
            None if whole.len() >= endings.kept => self.next_window = Some(tokens.len()),
            Some(next) if decode(&tokens[next..]).len() >= 2 * endings.kept => {
                (self.window, self.next_window) = (next, None);
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cell::Asking, numerics::choice::Choice};

    /// A token for every byte, and above them some that are several bytes or none.
    const PIECES: [&[u8]; 5] = [b"<end>", b"ab\ncd", b"", b"\n\n", "\u{e9}x".as_bytes()];
    const END: u32 = 256;
    const AB_NEWLINE_CD: u32 = 257;
    const NOTHING: u32 = 258;
    const TWO_NEWLINES: u32 = 259;
    const E_ACUTE_X: u32 = 260;

    fn decode(tokens: &[u32]) -> String {
        let bytes = tokens.iter().flat_map(|&token| match u8::try_from(token) {
            Ok(byte) => vec![byte],
            Err(_) => PIECES[token as usize - 256].to_vec(),
        });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }

    fn request(max_new_tokens: usize, stop_strings: &[&str]) -> Request {
        Request {
            prefill_chunk: None,
            asking: Asking::default(),
            max_new_tokens,
            stop_tokens: vec![END],
            stop_strings: stop_strings.iter().copied().map(str::to_owned).collect(),
            choice: Choice::Greedy,
            candidates: 1,
        }
    }

    fn prompt(replay: Option<&[u32]>) -> Prompt {
        Prompt { item: 0, tokens: vec![1], replay: replay.map(<[_]>::to_vec) }
    }

    /// How many tokens were taken, why no more, and the text.
    fn run(request: &Request, tokens: &[u32]) -> (usize, Option<Finish>, String) {
        let endings = Endings::new(request, Some(&decode)).unwrap();
        let prompt = prompt(None);
        let mut ending = endings.begin(&prompt);
        let taken = tokens.iter().take_while(|&&token| {
            ending.finish().is_none() && {
                ending.push(token);
                true
            }
        });
        (taken.count(), ending.finish(), ending.text())
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn a_stop_token_ends_a_sample_and_is_no_text() {
        let (taken, finish, text) = run(&request(9, &[]), &[b'a'.into(), END, b'b'.into()]);
        assert_eq!((taken, finish, text.as_str()), (2, Some(Finish::Stop), "a"));
    }

    #[test]
    fn the_last_token_allowed_ends_a_sample_unless_it_stops_it() {
        let (taken, finish, text) = run(&request(3, &[]), &bytes("abcd"));
        assert_eq!((taken, finish, text.as_str()), (3, Some(Finish::Length), "abc"));
        assert_eq!(run(&request(2, &[]), &[b'a'.into(), END]).1, Some(Finish::Stop));
        assert_eq!(run(&request(2, &["ab"]), &bytes("ab")).1, Some(Finish::Stop));
        assert_eq!(run(&request(9, &["ab"]), &bytes("a")), (1, None, "a".to_owned()));
    }

    #[test]
    fn no_tokens_allowed_is_an_end_at_once() {
        assert_eq!(run(&request(0, &[]), &bytes("a")), (0, Some(Finish::Length), String::new()));
    }

    #[test]
    fn a_stop_string_in_the_middle_of_a_token_cuts_its_text() {
        let (taken, finish, text) = run(&request(9, &["\n"]), &[b'x'.into(), AB_NEWLINE_CD, b'y'.into()]);
        assert_eq!((taken, finish, text.as_str()), (2, Some(Finish::Stop), "xab"));
    }

    #[test]
    fn a_stop_string_across_tokens_is_found_with_its_last_byte() {
        let tokens = [&bytes("Q"), &[TWO_NEWLINES, NOTHING][..], &bytes("Q: more")].concat();
        let (taken, finish, text) = run(&request(20, &["zzz", "\nQ:"]), &tokens);
        assert_eq!((taken, finish, text.as_str()), (5, Some(Finish::Stop), "Q\n"));
    }

    #[test]
    fn the_first_of_several_stop_strings_cuts() {
        let request = request(9, &["cd", "b\nc"]);
        assert_eq!(run(&request, &[AB_NEWLINE_CD]), (1, Some(Finish::Stop), "a".to_owned()));
    }

    #[test]
    fn a_character_that_is_not_whole_yet_stops_nothing() {
        let tokens = bytes("\u{e9}!");
        assert_eq!(run(&request(9, &["\u{e9}"]), &tokens), (2, Some(Finish::Stop), String::new()));
        assert_eq!(run(&request(9, &["\u{fffd}"]), &tokens), (3, None, "\u{e9}!".to_owned()));
        assert_eq!(run(&request(1, &[]), &tokens), (1, Some(Finish::Length), "\u{fffd}".to_owned()));
    }

    /// Long texts, so that the window moves many times, over tokens of every length and cuts through characters.
    #[test]
    fn the_window_sees_what_the_whole_text_says() {
        let stop = "0123456789\u{e9}x";
        let stops = [&bytes("0123456789")[..], &[NOTHING; 300], &[E_ACUTE_X]].concat();
        let split = [&bytes("0123456789")[..], &bytes("\u{e9}x")].concat();
        for before in 0..200 {
            let filler =
                [AB_NEWLINE_CD, 0xC3, 0xA9, b'0'.into(), E_ACUTE_X, NOTHING, b'1'.into(), TWO_NEWLINES];
            let filler: Vec<u32> = filler.into_iter().cycle().take(before).collect();
            for stops in [&stops, &split] {
                let tokens = [&filler[..], stops, &bytes("more")].concat();
                let expected = (before + stops.len(), Some(Finish::Stop), decode(&filler));
                assert_eq!(run(&request(1000, &[stop]), &tokens), expected);
            }
        }
    }

    #[test]
    fn a_long_sample_is_not_decoded_from_its_beginning_for_every_token() {
        let request = request(usize::MAX, &["never"]);
        let decoded = std::cell::Cell::new(0);
        let counting = |tokens: &[u32]| {
            decoded.set(decoded.get() + tokens.len());
            decode(tokens)
        };
        let endings = Endings::new(&request, Some(&counting)).unwrap();
        let prompt = prompt(None);
        let mut ending = endings.begin(&prompt);
        for _ in 0..10_000 {
            assert_eq!(ending.push(b'n'.into()), None);
        }
        assert!(decoded.get() < 100 * 10_000, "{}", decoded.get());
    }

    #[test]
    fn a_replay_goes_through_every_stop_and_has_the_text_of_what_it_replays() {
        let request = request(1, &["\n"]);
        let endings = Endings::new(&request, Some(&decode)).unwrap();
        let given = [b'x'.into(), AB_NEWLINE_CD, END, b'y'.into()];
        let prompt = prompt(Some(&given));
        let mut ending = endings.begin(&prompt);
        for (at, token) in given.into_iter().enumerate() {
            assert_eq!((ending.given(), ending.finish()), (Some(token), None), "{at}");
            ending.push(token);
        }
        assert_eq!((ending.given(), ending.finish()), (None, Some(Finish::Replayed)));
        assert_eq!(ending.text(), "xab");
        let nothing = self::prompt(Some(&[]));
        assert_eq!(endings.begin(&nothing).finish(), Some(Finish::Replayed));
    }

    #[test]
    fn stop_strings_that_cannot_be_found_are_refused() {
        let refused = |request: &Request, decode| Endings::new(request, decode).err().unwrap().to_string();
        assert_eq!(
            refused(&request(1, &["\n"]), None),
            "stop strings need the model's tokenizer, and it has none: use stop tokens"
        );
        assert_eq!(
            refused(&request(1, &[""]), Some(&decode)),
            "an empty stop string would end every sample at once: leave it out"
        );
        let request = request(1, &[]);
        assert_eq!(Endings::new(&request, None).unwrap().text(&[1, 2]), "");
    }
}
