//! Why a route cannot be worked, and what its owner can do.

/// Why a route cannot be worked.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The Service gets nothing from this route.
    #[error("no rule sends traffic to the Service {stable}")]
    NotNamed {
        /// The stable Service.
        stable: String,
        /// What the route should have.
        cure: &'static str,
    },
    /// One list has the Service in two backends.
    #[error("{at} names the Service {service} more than once")]
    Twice {
        /// The list.
        at: String,
        /// The Service.
        service: String,
    },
    /// The canary is where no release puts it.
    #[error("{at} names the Service {canary}, and not as a release would have written it")]
    Foreign {
        /// Where.
        at: String,
        /// The canary's Service.
        canary: String,
    },
    /// A part of the route is not what its kind documents.
    #[error("{at} is not understood: {why}")]
    Unreadable {
        /// Where.
        at: String,
        /// What is there.
        why: String,
    },
    /// Neither version would get anything.
    #[error("{at} gives stable and canary weight 0")]
    NoWeight {
        /// The list.
        at: String,
    },
    /// The weights of this list leave no room for whole percents.
    #[error(
        "the weights of {at} cannot be split into whole percents: the most that this router takes is {most}"
    )]
    TooFine {
        /// The list.
        at: String,
        /// The greatest weight.
        most: i64,
    },
    /// This router cannot do it.
    #[error("{router} cannot {what}")]
    Unable {
        /// The router.
        router: &'static str,
        /// What was asked of it.
        what: &'static str,
        /// What can be done instead.
        cure: &'static str,
    },
    /// A condition that cannot be put beside those that the rule has, or not into this router's words.
    #[error("the match of {name} cannot be added to {at}: {why}")]
    Match {
        /// The rule.
        at: String,
        /// The header, cookie or parameter.
        name: String,
        /// What stands against it.
        why: &'static str,
    },
    /// The kind has a limit.
    #[error("the route would have {have} {what}, and its kind takes {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        have: usize,
        /// How many are allowed.
        most: usize,
    },
    /// Not a percentage.
    #[error("{value} is not {what} in percent")]
    Share {
        /// Of what.
        what: &'static str,
        /// The number.
        value: i32,
    },
}

impl Refusal {
    /// What the owner of the route can do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::Twice { service, .. } => format!("name {service} once in each list of backends"),
            Self::Foreign { canary, .. } => {
                format!("take {canary} out of the route: Belay adds it when a release starts")
            }
            Self::Unreadable { .. } => "write it as the router's documentation has it".to_owned(),
            Self::NoWeight { .. } => "give stable its weight back".to_owned(),
            Self::TooFine { .. } => {
                "use small weights, or round ones: 30 and 70 instead of 33 and 67".to_owned()
            }
            Self::NotNamed { cure, .. } | Self::Unable { cure, .. } => (*cure).to_owned(),
            Self::Match { .. } => "use another header, cookie or parameter".to_owned(),
            Self::TooMany { .. } => "use fewer matches, or divide the route".to_owned(),
            Self::Share { .. } => "use a number from 0 to 100".to_owned(),
        }
    }
}
