//! Values under small numbers that are used again.

/// A table whose insert, remove and lookup are O(1). A key names its value until that is removed, and another later.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(key) = self.vacant.pop() {
            self.places[key as usize] = Some(value);
            return key;
        }
        self.places.push(Some(value));
        u32::try_from(self.places.len() - 1).expect("memory ends before four billion watchers")
    }

    pub fn remove(&mut self, key: u32) -> T {
        let value = self.places[key as usize].take().expect("a key is removed once");
        self.vacant.push(key);
        value
    }

    pub fn get(&self, key: u32) -> &T {
        self.places[key as usize].as_ref().expect("whoever holds a key drops it before the value is removed")
    }

    pub fn get_mut(&mut self, key: u32) -> &mut T {
        self.places[key as usize].as_mut().expect("whoever holds a key drops it before the value is removed")
    }

    /// All values with their keys, by key.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..).zip(&self.places).filter_map(|(key, place)| Some((key, place.as_ref()?)))
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }
}
