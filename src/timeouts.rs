//! Named bounds of waits, as `--timeout NAME=SECONDS` and the configuration set them.

/// Declares the bounds of one end's waits: each a field, a name of the same spelling, and a default in seconds.
macro_rules! timeouts {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $of:literal])* $field:ident = $seconds:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $of])* pub $field: std::time::Duration,)*
        }

        impl $name {
            /// The names that can be set.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// What each is for, in the order of the names.
            pub(crate) const ABOUT: &'static [&'static str] = &[$(concat!($($of),*)),*];

            /// Sets one bound by its name; false when there is none of that name.
            pub fn set(&mut self, name: &str, bound: std::time::Duration) -> bool {
                self.slot(name).map(|slot| *slot = bound).is_some()
            }

            /// The bounds by their names.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, std::time::Duration)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }

            pub(crate) fn slot(&mut self, name: &str) -> Option<&mut std::time::Duration> {
                match name {
                    $(stringify!($field) => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: std::time::Duration::from_secs($seconds),)* }
            }
        }
    };
}

pub(crate) use timeouts;

/// A bound of so many seconds, if that is 0.1 to 86400.
pub(crate) fn bound(seconds: f64) -> Option<std::time::Duration> {
    (0.1..=86_400.0).contains(&seconds).then(|| std::time::Duration::from_secs_f64(seconds))
}
