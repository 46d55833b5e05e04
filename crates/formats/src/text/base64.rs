//! Base64 (RFC 4648, with padding), as Flink and Spark write binary in JSON and CSV.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Value of each byte in the alphabet, 255 for all others.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut i = 0;
    while i < 64 {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// Appends `bytes` encoded.
pub(crate) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let symbol = ALPHABET[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { symbol } else { b'=' });
        }
    }
}

/// Appends what `text` encodes; padding may be missing. False if it is not Base64; `out` may then hold a part.
pub(crate) fn parse(text: &[u8], out: &mut Vec<u8>) -> bool {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let symbols = &text[..text.len() - padding];
    if padding > 2 || symbols.len() % 4 == 1 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return false;
    }
    for chunk in symbols.chunks(4) {
        let mut word = 0_u32;
        for (i, symbol) in chunk.iter().enumerate() {
            let value = VALUES[usize::from(*symbol)];
            if value == 255 {
                return false;
            }
            word |= u32::from(value) << (18 - 6 * i);
        }
        out.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_rfc() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            write(plain.as_bytes(), &mut out);
            assert_eq!(out, encoded.as_bytes());
            assert!(parse(&out, &mut back));
            assert_eq!(back, plain.as_bytes());
        }
    }

    #[test]
    fn not_base64() {
        for bad in ["Z", "Zg=", "Zm9v=", "Zm 9v", "====", "Zg==Zg=="] {
            assert!(!parse(bad.as_bytes(), &mut Vec::new()), "{bad}");
        }
        assert!(parse(b"Zg", &mut Vec::new()), "padding is optional");
    }
}
