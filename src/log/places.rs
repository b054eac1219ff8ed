//! Places for watches, of which one workspace cannot take all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// In all.
    pub total: usize,
    /// For one workspace. A quarter of all is kept for those that have none.
    pub each: usize,
}

/// Gives places, and takes them back. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hall {
    places: Places,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    hall: Hall,
    who: String,
}

impl Hall {
    /// One whose places are all free.
    pub fn new(places: Places) -> Self {
        Self { places, taken: Arc::default() }
    }

    /// A place for `who`, which is a namespace, or what stands for all of them.
    ///
    /// # Errors
    /// There is none for it now, and why; for people.
    pub fn enter(&self, who: &str) -> Result<Place, String> {
        let Places { total, each } = self.places;
        let mut taken = self.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(who).copied().unwrap_or_default());
        if own >= each {
            return Err(format!("{own} watches of this kind are open already, which is the most for one workspace"));
        }
        let kept = if own == 0 { 0 } else { total / 4 };
        if all + kept >= total {
            return Err(format!("{all} of {total} watches are open already"));
        }
        taken.insert(who.to_owned(), own + 1);
        drop(taken);
        Ok(Place { hall: self.clone(), who: who.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.hall.lock();
        if let Some(own) = taken.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_workspaces_that_take_what_they_get_leave_a_place_for_others() {
        let hall = Hall::new(Places { total: 64, each: 16 });
        let mut open = Vec::new();
        for n in 0..10 {
            while let Ok(place) = hall.enter(&format!("greedy-{n}")) {
                open.push(place);
            }
        }
        let counts: Vec<usize> = (0..4).map(|n| hall.lock()[&format!("greedy-{n}")]).collect();
        assert_eq!(counts, [16, 16, 16, 1]);
        assert!(hall.enter("greedy-0").unwrap_err().contains("16 watches"));
        assert!(hall.enter("greedy-5").unwrap_err().contains("55 of 64"));
        open.push(hall.enter("calm").unwrap());
        assert_eq!(open.len(), 56);
        drop(open);
        assert!(hall.lock().is_empty());
    }
}
