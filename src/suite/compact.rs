//! How a model that reads characters is asked, and the steps it writes before the answer.
//!
//! Every step is one that a small model can learn: a digit at a time, the lowest first, with what is carried on. A `>`
//! stands before the answer.

/// What stands before the answer.
pub const ANSWER: char = '>';

/// A question and its way to the answer, for a model that reads characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compact {
    /// As far as the equals sign.
    pub prompt: String,
    /// Every step, without the answer.
    pub scratchpad: String,
}

/// The digits of a number, the lowest first.
fn reversed(number: u64) -> Vec<u8> {
    number.to_string().bytes().rev().map(|digit| digit - b'0').collect()
}

fn text(digits: &[u8]) -> String {
    digits.iter().map(|digit| char::from(b'0' + digit)).collect()
}

fn joined<T: ToString>(steps: impl IntoIterator<Item = T>, separator: &str) -> String {
    steps.into_iter().map(|step| step.to_string()).collect::<Vec<_>>().join(separator)
}

/// Two digits of every place, the lowest first; a number that has no more gives zeros.
fn places(a: u64, b: u64) -> impl Iterator<Item = (u8, u8)> {
    let (a, b) = (reversed(a), reversed(b));
    let digit = |of: &[u8], place| of.get(place).copied().unwrap_or(0);
    (0..a.len().max(b.len())).map(move |place| (digit(&a, place), digit(&b, place)))
}

/// `a + b`: for each place both digits, the carry and the digit of the sum.
pub fn add(a: u64, b: u64) -> Compact {
    let mut carry = 0;
    let steps = places(a, b).map(|(p, q)| {
        let sum = p + q + carry;
        carry = sum / 10;
        text(&[p, q, carry, sum % 10])
    });
    Compact { prompt: format!("{a}+{b}="), scratchpad: joined(steps, ";") }
}

/// `a - b`: for each place both digits, the borrow and the digit of the difference; where `b` is larger, those of
/// `b - a` after a minus.
pub fn subtract(a: u64, b: u64) -> Compact {
    let mut borrow = 0;
    let steps = places(a.max(b), a.min(b)).map(|(p, q)| {
        let (take, carried) = (q + borrow, p);
        borrow = u8::from(carried < take);
        text(&[p, q, borrow, carried + 10 * borrow - take])
    });
    let sign = if a < b { "-" } else { "" };
    Compact { prompt: format!("{a}-{b}="), scratchpad: format!("{sign}{}", joined(steps, ";")) }
}

/// `a * b`: for each digit of `b` itself, what it adds and the running sum, both with the lowest digit first.
pub fn multiply(a: u64, b: u64) -> Compact {
    let backward = |number: u64| text(&reversed(number));
    let (mut running, mut place) = (0, 1);
    let steps = reversed(b).into_iter().map(|digit| {
        let partial = u64::from(digit) * a;
        running += partial * place;
        // Zeros stand where the digits lie below this place, even before a partial product of 0.
        let shift = place.ilog10() as usize;
        place *= 10;
        format!("{digit}:{}{},{}", "0".repeat(shift), backward(partial), backward(running))
    });
    Compact { prompt: format!("{a}*{b}="), scratchpad: joined(steps, ";") }
}

/// The steps of a long division: at each digit what is divided, the digit of the quotient, what remains.
fn division(a: u64, b: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let mut rest = 0;
    reversed(a).into_iter().rev().map(move |digit| {
        let divided = 10 * rest + u64::from(digit);
        rest = divided % b;
        (divided, divided / b, rest)
    })
}

/// `a % b`: for each digit what is divided, and what remains.
pub fn remainder(a: u64, b: u64) -> Compact {
    let steps = division(a, b).map(|(divided, _, rest)| format!("{divided}:{rest}"));
    Compact { prompt: format!("{a}%{b}="), scratchpad: joined(steps, ";") }
}

/// `a // b`: for each digit what is divided, the digit of the quotient, what remains.
pub fn quotient(a: u64, b: u64) -> Compact {
    let steps = division(a, b).map(|(divided, digit, rest)| format!("{divided}:{digit},{rest}"));
    Compact { prompt: format!("{a}//{b}="), scratchpad: joined(steps, ";") }
}

/// The numbers of Euclid's algorithm, the larger first, as far as 0.
fn euclid(a: u64, b: u64) -> Vec<u64> {
    let mut numbers = vec![a.max(b), a.min(b)];
    while let [.., before, last] = numbers[..]
        && last != 0
    {
        numbers.push(before % last);
    }
    numbers
}

/// The greatest common divisor: Euclid's algorithm.
pub fn gcd(a: u64, b: u64) -> Compact {
    Compact { prompt: format!("gcd({a},{b})="), scratchpad: joined(euclid(a, b), ",") }
}

/// `a / b` as a fraction: Euclid's algorithm first.
pub fn fraction(a: u64, b: u64) -> Compact {
    Compact { prompt: format!("{a}/{b}="), scratchpad: joined(euclid(a, b), ",") }
}

/// Something of a list: what it is so far, after each element.
pub fn running<T: ToString>(task: &str, list: &[i64], so_far: impl IntoIterator<Item = T>) -> Compact {
    Compact { prompt: format!("{task}({})=", joined(list, ",")), scratchpad: joined(so_far, ",") }
}

/// A number in another base: divided again and again, with what remains, the lowest digit first.
pub fn to_base(task: &str, number: u64, base: u64) -> Compact {
    let mut rest = number;
    let steps = std::iter::from_fn(|| {
        (rest > 0).then(|| {
            let divided = rest;
            rest /= base;
            format!("{divided}:{rest},{}", divided % base)
        })
    });
    Compact { prompt: format!("{task}({number})="), scratchpad: joined(steps, ";") }
}

/// A number from another base: what it is so far, after each digit.
pub fn from_base(written: &str, prefix: &str, base: u32) -> Compact {
    let mut value = 0_u64;
    let steps = written.chars().filter_map(|digit| digit.to_digit(base)).map(|digit| {
        value = value * u64::from(base) + u64::from(digit);
        value
    });
    let scratchpad = joined(steps, ",");
    Compact { prompt: format!("int({prefix}{written})="), scratchpad }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_written_as_pinned() {
        let cases = [
            (add(18, 73), "18+73=", "8311;1709"),
            (add(95, 73), "95+73=", "5308;9716"),
            (add(5, 128), "5+128=", "5813;0203;0101"),
            (subtract(51606, 0), "51606-0=", "6006;0000;6006;1001;5005"),
            (subtract(73, 18), "73-18=", "3815;7105"),
            (subtract(18, 73), "18-73=", "-3815;7105"),
            (subtract(4, 4), "4-4=", "4400"),
            (multiply(6, 321), "6*321=", "1:6,6;2:021,621;3:0081,6291"),
            (multiply(613, 40), "613*40=", "0:0,0;4:02542,02542"),
            (remainder(957, 3), "957%3=", "9:0;5:2;27:0"),
            (quotient(957, 3), "957//3=", "9:3,0;5:1,2;27:9,0"),
            (gcd(18, 48), "gcd(18,48)=", "48,18,12,6,0"),
            (fraction(18, 12), "18/12=", "18,12,6,0"),
            (running("sum", &[93, 4, 68], [93, 97, 165]), "sum(93,4,68)=", "93,97,165"),
            (to_base("bin", 6, 2), "bin(6)=", "6:3,0;3:1,1;1:0,1"),
            (to_base("hex", 250, 16), "hex(250)=", "250:15,10;15:0,15"),
            (from_base("101", "0b", 2), "int(0b101)=", "1,2,5"),
            (from_base("FA", "0x", 16), "int(0xFA)=", "15,250"),
        ];
        for (compact, prompt, scratchpad) in cases {
            assert_eq!((compact.prompt.as_str(), compact.scratchpad.as_str()), (prompt, scratchpad));
        }
    }
}
