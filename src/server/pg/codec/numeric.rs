//! `numeric`: a number in the engine if there is one that keeps its digits, else decimal text; in the binary format, digits
//! of base 10,000.
//!
//! ```text
//!  ndigits i16 | weight i16 | sign u16 | dscale u16 | digits u16 …
//! ```
//!
//! The first digit counts 10,000 to the power of `weight`; `dscale` is how many decimal digits stand behind the point.

use bytes::{Buf, BufMut, BytesMut};

use super::super::types::OwnedValue;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
/// Decimal digits in one of base 10,000.
const WIDTH: usize = 4;
const BASE: u16 = 10_000;
/// Decimal digits before the point, and behind it; a double has 309.
const DIGITS_LIMIT: usize = 1000;
/// Decimal digits that a double gives back as they were.
const REAL_DIGITS: usize = 15;

/// Appends the binary form of a number in text, with an exponent or not; `None` if it is none.
pub(super) fn encode(text: &str, out: &mut BytesMut) -> Option<()> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case("nan") {
        put(out, 0, NOT_A_NUMBER, 0, &[])?;
        return Some(());
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (NEGATIVE, rest),
        None => (POSITIVE, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Where the point stands, counted from the first digit.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let limit = i64::try_from(DIGITS_LIMIT).ok()?;
    if digits.len() > DIGITS_LIMIT || !(-limit..=limit).contains(&point) {
        return None;
    }
    let before = usize::try_from(-point).unwrap_or(0);
    let mut all = [&"0".repeat(before), digits.as_str()].concat();
    let point = usize::try_from(point).unwrap_or(0);
    all.extend(std::iter::repeat_n('0', point.saturating_sub(all.len())));
    let (whole, fraction) = all.split_at_checked(point)?;
    let scale = fraction.len();
    let whole = format!("{}{whole}", "0".repeat(whole.len().next_multiple_of(WIDTH) - whole.len()));
    let fraction = format!("{fraction}{}", "0".repeat(scale.next_multiple_of(WIDTH) - scale));
    let groups: Option<Vec<u16>> = [whole.as_bytes(), fraction.as_bytes()]
        .concat()
        .chunks(WIDTH)
        .map(|group| std::str::from_utf8(group).ok()?.parse().ok())
        .collect();
    let groups = groups?;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let weight = i64::try_from(whole.len() / WIDTH).ok()? - 1 - i64::try_from(leading).ok()?;
    let kept = groups.get(leading..)?;
    let trailing = kept.iter().rev().take_while(|group| **group == 0).count();
    let kept = kept.get(..kept.len() - trailing)?;
    let (weight, sign) = if kept.is_empty() { (0, POSITIVE) } else { (i16::try_from(weight).ok()?, sign) };
    put(out, weight, sign, u16::try_from(scale).ok()?, kept)
}

fn put(out: &mut BytesMut, weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Option<()> {
    out.put_i16(i16::try_from(digits.len()).ok()?);
    out.put_i16(weight);
    out.put_u16(sign);
    out.put_u16(scale);
    digits.iter().for_each(|digit| out.put_u16(*digit));
    Some(())
}

/// The text of a number in binary; `None` if it is none.
pub(super) fn decode(mut bytes: &[u8]) -> Option<String> {
    let count = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    let weight = i64::from(bytes.try_get_i16().ok()?);
    let (sign, scale) = (bytes.try_get_u16().ok()?, usize::from(bytes.try_get_u16().ok()?));
    if sign == NOT_A_NUMBER {
        return (bytes.is_empty() && count == 0).then(|| "NaN".to_owned());
    }
    let limit = i64::try_from(DIGITS_LIMIT / WIDTH).ok()?;
    if bytes.len() != 2 * count || count > DIGITS_LIMIT || scale > DIGITS_LIMIT || !(-limit..=limit).contains(&weight) {
        return None;
    }
    let mut digits = Vec::with_capacity(count);
    while bytes.has_remaining() {
        digits.push(bytes.try_get_u16().ok().filter(|digit| *digit < BASE)?);
    }
    // The digit of that power of 10,000.
    let digit = |power: i64| {
        let index = usize::try_from(weight - power).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let whole: String = (0..=weight.max(0)).rev().map(|power| format!("{:04}", digit(power))).collect();
    let behind = i64::try_from(scale.div_ceil(WIDTH)).ok()?;
    let fraction: String = (1..=behind).map(|power| format!("{:04}", digit(-power))).collect();
    let sign = match sign {
        POSITIVE => "",
        NEGATIVE => "-",
        _ => return None,
    };
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = fraction.get(..scale)?;
    let point = if scale == 0 { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// The text of a number as it is stored: without an exponent, a plus or leading zeros; `None` if it is none.
pub(super) fn stored(text: &str) -> Option<String> {
    let mut binary = BytesMut::new();
    encode(text, &mut binary)?;
    decode(&binary)
}

/// What an engine is given for such a text: what counts as a number there must not arrive as text, which it would compare
/// otherwise. Text that is no number, or one that neither an integer nor a double holds, stays as it is.
pub(super) fn value(text: String) -> OwnedValue {
    let number = text.parse().ok().map(OwnedValue::Integer).or_else(|| real(&text).map(OwnedValue::Real));
    number.unwrap_or(OwnedValue::Text(text))
}

/// The double that a plain decimal number is, if it keeps all of its digits.
fn real(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'.'));
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_matches('0').len();
    let real: f64 = text.parse().ok().filter(|_| is_plain && significant <= REAL_DIGITS)?;
    // Next to zero, a double has fewer digits.
    (real.is_normal() || significant == 0).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(text: &str) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        encode(text, &mut out).map(|()| out.to_vec())
    }

    #[test]
    fn values_are_postgresqls() {
        for (text, bytes) in [
            ("0", &[0, 0, 0, 0, 0, 0, 0, 0][..]),
            ("1", &[0, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("-1.50", &[0, 2, 0, 0, 0x40, 0, 0, 2, 0, 1, 0x13, 0x88]),
            ("12345.678", &[0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1A, 0x7C]),
            ("0.0001", &[0, 1, 255, 255, 0, 0, 0, 4, 0, 1]),
            ("10000", &[0, 1, 0, 1, 0, 0, 0, 0, 0, 1]),
            ("NaN", &[0, 0, 0, 0, 0xC0, 0, 0, 0]),
        ] {
            assert_eq!(binary(text).as_deref(), Some(bytes), "{text}");
            assert_eq!(decode(bytes).as_deref(), Some(text), "{text}");
        }
    }

    #[test]
    fn numbers_come_back_without_exponents() {
        for (text, same) in [
            ("1e3", "1000"),
            ("-2.5E-3", "-0.0025"),
            ("1.5e+20", "150000000000000000000"),
            ("007.10", "7.10"),
            (".5", "0.5"),
            ("-0.0", "0.0"),
            ("99999999.99999999", "99999999.99999999"),
            ("100000000000000000000000001", "100000000000000000000000001"),
        ] {
            assert_eq!(stored(text).as_deref(), Some(same), "{text}");
        }
    }

    #[test]
    fn engines_get_numbers_where_these_keep_the_digits() {
        let text = |text: &str| OwnedValue::Text(text.to_owned());
        for (given, expected) in [
            ("0", OwnedValue::Integer(0)),
            ("-42", OwnedValue::Integer(-42)),
            ("9223372036854775807", OwnedValue::Integer(i64::MAX)),
            ("9223372036854775808", text("9223372036854775808")),
            ("100000000000000000000", OwnedValue::Real(1e20)),
            ("3.5", OwnedValue::Real(3.5)),
            ("5.00", OwnedValue::Real(5.0)),
            ("0.000", OwnedValue::Real(0.0)),
            ("-0.000123456789012345", OwnedValue::Real(-0.000123456789012345)),
            ("123456789012.345", OwnedValue::Real(123456789012.345)),
            ("0.1234567890123456", text("0.1234567890123456")),
            ("NaN", text("NaN")),
            ("inf", text("inf")),
            ("-", text("-")),
            ("ten", text("ten")),
        ] {
            assert_eq!(value(given.to_owned()), expected, "{given}");
        }
        let (huge, tiny) = (stored("1e400").unwrap(), stored("1e-400").unwrap());
        assert_eq!((value(huge.clone()), value(tiny.clone())), (text(&huge), text(&tiny)));
        let least = stored("123456789012345e-330").unwrap();
        assert_eq!(value(least.clone()), text(&least));
    }

    #[test]
    fn what_is_none_is_none() {
        for text in [
            "",
            "-",
            ".",
            "1e",
            "1e99999",
            "1e-99999",
            "1e9223372036854775807",
            "0x10",
            "1.2.3",
            "Infinity",
            "ein",
            "--1",
        ] {
            assert_eq!(binary(text), None, "{text}");
        }
        let whole = binary("12345.678").unwrap();
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "{length}");
        }
        assert_eq!(decode(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]), None);
        assert_eq!(decode(&[0, 0, 0x7F, 0, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[0, 0, 0, 0, 0x12, 0, 0, 0]), None);
    }
}
