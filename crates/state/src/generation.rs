//! Who leads. A **generation** is one leadership of a driver; it is claimed by creating `generation/<number>`, which exactly
//! one process can. A lease chooses who tries first; this object decides.
use millstream_plan::Generation;

use crate::StateError;
use crate::objects::{CheckpointStore, Create, number_of, numbered};

const FOLDER: &str = "generation";

/// Outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The generation is the caller's.
    Won,
    /// Somebody else has it.
    Lost {
        /// As given to that claim.
        holder: String,
    },
}

/// The generations of a location.
#[derive(Clone, Debug)]
pub struct Generations {
    store: CheckpointStore,
}

impl Generations {
    /// Of this location.
    #[must_use]
    pub fn new(store: CheckpointStore) -> Self {
        Self { store }
    }

    /// The highest generation claimed so far. A leader that finds one above its own has been replaced.
    pub async fn newest(&self) -> Result<Option<Generation>, StateError> {
        let listed = self.store.list(FOLDER, None).await?;
        Ok(listed.iter().filter_map(|object| number_of(&object.path)).max().map(Generation))
    }

    /// Claims a generation for this store's writer. `holder` names the process to people: host and pid.
    pub async fn claim(&self, generation: Generation, holder: &str) -> Result<Claim, StateError> {
        Ok(match self.store.create(&numbered(FOLDER, generation.0), holder.as_bytes()).await? {
            Create::Created | Create::AlreadyOurs => Claim::Won,
            Create::Exists { bytes, .. } => Claim::Lost { holder: String::from_utf8_lossy(&bytes).into_owned() },
        })
    }
}
