//! Format of a bundle: the magic line, 16 random bytes, then for each file the length of its name (u16), its name, the length of
//! its content (u64) and its content; integers are big endian. Integrity is that of the content hash.
use super::is_plain;

/// Name of a bundle beside the data files.
pub const NAME: &str = "bundle";
const MAGIC: &[u8] = b"millstream bundle 1\n";
const SALT: usize = 16;

/// A file in a bundle.
pub type Packed = (String, Vec<u8>);

/// Packs small files. `salt` makes the bundle unlike any other.
pub fn pack(salt: [u8; SALT], files: &[Packed]) -> Result<Vec<u8>, String> {
    let mut out = [MAGIC, &salt].concat();
    for (name, content) in files {
        let length = u16::try_from(name.len()).map_err(|_| format!("the name {name:?} is too long"))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(content.len() as u64).to_be_bytes());
        out.extend_from_slice(content);
    }
    Ok(out)
}

/// The files of a bundle.
pub fn unpack(bundle: &[u8]) -> Result<Vec<(&str, &[u8])>, String> {
    let mut rest = bundle.strip_prefix(MAGIC).and_then(|rest| rest.get(SALT..)).ok_or("it is not a bundle")?;
    let mut files = Vec::new();
    while !rest.is_empty() {
        let (name, content, after) = next(rest).ok_or("it ends in the middle of a file")?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_plain(name)).ok_or("a file's name is not plain")?;
        files.push((name, content));
        rest = after;
    }
    Ok(files)
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk()?;
    let (content, rest) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
    Some((name, content, rest))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn files_survive_and_cuts_are_found() {
        let files = vec![("CURRENT".to_owned(), b"MANIFEST-1\n".to_vec()), ("MANIFEST-1".to_owned(), vec![])];
        let bundle = pack([7; SALT], &files).unwrap();
        let unpacked: Vec<_> = unpack(&bundle).unwrap().into_iter().map(|(n, c)| (n.to_owned(), c.to_vec())).collect();
        assert_eq!(unpacked, files);
        let first_file = MAGIC.len() + SALT + 2 + 7 + 8 + 11;
        for cut in 0..bundle.len() {
            let whole_files = cut == MAGIC.len() + SALT || cut == first_file;
            assert_eq!(unpack(&bundle[..cut]).is_ok(), whole_files, "cut to {cut}");
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["../x", "/etc/x", "a/b", "", ".hidden"] {
            assert!(unpack(&pack([0; SALT], &[(name.to_owned(), vec![])]).unwrap()).is_err(), "{name}");
        }
    }
}
