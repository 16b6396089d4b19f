//! Named bounds of waits, as `--timeout NAME=SECONDS` sets them.

/// Declares the bounds of one end's waits: each a field, a name of the same spelling, and a default in seconds.
macro_rules! timeouts {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $field:ident = $seconds:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$of])* pub $field: std::time::Duration,)*
        }

        impl $name {
            /// The names that can be set.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Sets one bound by its name; false when there is none of that name.
            pub fn set(&mut self, name: &str, bound: std::time::Duration) -> bool {
                match name {
                    $(stringify!($field) => self.$field = bound,)*
                    _ => return false,
                }
                true
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
