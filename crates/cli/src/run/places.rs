//! Where a run keeps its local files: as the user says, otherwise in a temporary folder that goes when the run ends.
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::Failure;

/// Folder of a run. Dropping it removes what is temporary.
pub struct Places {
    state_dir: PathBuf,
    temporary: Option<TempDir>,
}

impl Places {
    /// `state_dir`, or a temporary folder.
    ///
    /// # Errors
    /// No temporary folder can be made.
    pub fn prepare(state_dir: Option<&Path>) -> Result<Self, Failure> {
        if let Some(given) = state_dir {
            return Ok(Self { state_dir: given.to_owned(), temporary: None });
        }
        let made = tempfile::Builder::new().prefix("millstream-").tempdir();
        let temporary = made.map_err(|e| Failure::job(format!("cannot make a temporary folder: {e}")))?;
        Ok(Self { state_dir: temporary.path().to_owned(), temporary: Some(temporary) })
    }

    /// The folder.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The folder goes when the run ends.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Ends it. Dead letters are never thrown away: if the temporary folder holds some, it stays, and this says where they are.
    #[must_use]
    pub fn close(self) -> Option<PathBuf> {
        let letters = dead_letters(self.temporary.as_ref()?.path())?;
        let _stays = self.temporary?.keep();
        Some(letters)
    }
}

/// The folder `dead-letters` below `folder`, if it holds a file.
fn dead_letters(folder: &Path) -> Option<PathBuf> {
    subfolders(folder).find_map(|sub| {
        let is_letters = sub.file_name().is_some_and(|n| n == "dead-letters");
        if is_letters { holds_files(&sub).then_some(sub) } else { dead_letters(&sub) }
    })
}

fn holds_files(folder: &Path) -> bool {
    entries(folder).any(|path| path.is_file()) || subfolders(folder).any(|sub| holds_files(&sub))
}

fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    entries(folder).filter(|path| path.is_dir())
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_unless_it_holds_dead_letters() {
        let places = Places::prepare(None).unwrap();
        let folder = places.state_dir().to_owned();
        std::fs::create_dir_all(folder.join("checkpoint/dead-letters/orders")).unwrap();
        assert!(places.is_temporary());
        assert_eq!(places.close(), None);
        assert!(!folder.exists());

        let places = Places::prepare(None).unwrap();
        let folder = places.state_dir().to_owned();
        let letters = folder.join("checkpoint/dead-letters");
        std::fs::create_dir_all(letters.join("orders")).unwrap();
        std::fs::write(letters.join("orders/1.json"), "{}").unwrap();
        assert_eq!(places.close(), Some(letters.clone()));
        assert!(letters.join("orders/1.json").exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_the_user_says_is_used_and_stays() {
        let own = tempfile::tempdir().unwrap();
        let places = Places::prepare(Some(own.path())).unwrap();
        assert_eq!((places.state_dir(), places.is_temporary()), (own.path(), false));
        assert_eq!(places.close(), None);
        assert!(own.path().exists());
    }
}
