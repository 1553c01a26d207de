//! Course subscriptions: capacity belongs to the course, the limit of five to the student, and one
//! decision keeps both.

use annals_core::{Annals, CommandError, Emit, Fold, Over, Query, Recorded, Tag};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::store::{given, head, processes, since};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "course", crate = "annals_core")]
enum CourseEvent {
    Defined {
        #[event(tag)]
        course: String,
        capacity: usize,
    },
    CapacityChanged {
        #[event(tag)]
        course: String,
        capacity: usize,
    },
    Subscribed {
        #[event(tag)]
        course: String,
        #[event(tag)]
        student: String,
    },
}

use CourseEvent::{CapacityChanged, Defined, Subscribed};

fn defined(course: &str, capacity: usize) -> CourseEvent {
    Defined {
        course: course.into(),
        capacity,
    }
}

fn capacity_changed(course: &str, capacity: usize) -> CourseEvent {
    CapacityChanged {
        course: course.into(),
        capacity,
    }
}

fn subscribed(course: &str, student: &str) -> CourseEvent {
    Subscribed {
        course: course.into(),
        student: student.into(),
    }
}

#[derive(Debug, Default)]
struct Course {
    exists: bool,
    capacity: usize,
    students: Vec<String>,
}

impl Fold for Course {
    type Event = CourseEvent;

    fn apply(&mut self, event: &Recorded<CourseEvent>) {
        match &**event {
            Defined { capacity, .. } => (self.exists, self.capacity) = (true, *capacity),
            CapacityChanged { capacity, .. } => self.capacity = *capacity,
            Subscribed { student, .. } => self.students.push(student.clone()),
        }
    }
}

/// In how many courses a student is.
#[derive(Debug, Default)]
struct Student {
    courses: usize,
}

impl Fold for Student {
    type Event = CourseEvent;

    fn apply(&mut self, event: &Recorded<CourseEvent>) {
        self.courses += usize::from(matches!(**event, Subscribed { .. }));
    }
}

fn course(id: &str) -> Over<Course> {
    Course::over(Query::tagged([Tag::new("course", id).unwrap()]))
}

fn student(id: &str) -> Over<Student> {
    Student::over(Query::tagged([Tag::new("student", id).unwrap()]))
}

async fn decide(db: &Annals, command: &CourseEvent) -> Result<(), CommandError<String>> {
    let emit = |course: &str| Ok(Emit::to(format!("course-{course}"), command.clone()));
    let refuse = |why: String| Err(why);
    match command {
        Defined { course: id, .. } => {
            let define = |found: &Course| {
                if found.exists {
                    refuse(format!("{id} exists"))
                } else {
                    emit(id)
                }
            };
            db.decide(course(id), define).await?;
        }
        CapacityChanged {
            course: id,
            capacity,
        } => {
            let change = |found: &Course| match found {
                Course { exists: false, .. } => refuse(format!("{id} does not exist")),
                Course { capacity: now, .. } if now == capacity => {
                    refuse(format!("{id} has {capacity} already"))
                }
                _ => emit(id),
            };
            db.decide(course(id), change).await?;
        }
        Subscribed {
            course: id,
            student: who,
        } => {
            let subscribe = |(course, student): &(Course, Student)| match course {
                Course { exists: false, .. } => refuse(format!("{id} does not exist")),
                Course { students, .. } if students.contains(who) => {
                    refuse(format!("{who} is in {id} already"))
                }
                Course {
                    capacity, students, ..
                } if students.len() >= *capacity => refuse(format!("{id} is full")),
                _ if student.courses >= 5 => refuse(format!("{who} is in 5 courses")),
                _ => emit(id),
            };
            db.decide((course(id), student(who)), subscribe).await?;
        }
    }
    Ok(())
}

async fn check(history: &[CourseEvent], command: CourseEvent, expected: Result<(), &str>) {
    let [db] = processes();
    given(&db, "course-given", history.iter().cloned()).await;
    let before = head(&db).await;
    let outcome = decide(&db, &command)
        .await
        .map_err(|error| error.to_string());
    assert_eq!(
        outcome,
        expected.map_err(str::to_owned),
        "{command:?} after {history:?}"
    );
    let then: Vec<CourseEvent> = since(&db, before).await;
    assert_eq!(
        then,
        if expected.is_ok() {
            vec![command]
        } else {
            vec![]
        }
    );
}

#[tokio::test]
async fn a_course_is_defined_once() {
    check(&[], defined("c1", 3), Ok(())).await;
    check(&[defined("c2", 3)], defined("c1", 3), Ok(())).await;
    check(&[defined("c1", 3)], defined("c1", 15), Err("c1 exists")).await;
}

#[tokio::test]
async fn the_capacity_of_a_known_course_can_be_changed() {
    check(&[], capacity_changed("c0", 15), Err("c0 does not exist")).await;
    check(
        &[defined("c1", 12)],
        capacity_changed("c1", 12),
        Err("c1 has 12 already"),
    )
    .await;
    check(&[defined("c1", 12)], capacity_changed("c1", 15), Ok(())).await;
}

#[tokio::test]
async fn a_student_subscribes_while_course_and_week_have_room() {
    check(&[], subscribed("c0", "s1"), Err("c0 does not exist")).await;
    let full = [
        defined("c1", 3),
        subscribed("c1", "s1"),
        subscribed("c1", "s2"),
        subscribed("c1", "s3"),
    ];
    check(&full, subscribed("c1", "s4"), Err("c1 is full")).await;
    check(&full[..3], subscribed("c1", "s4"), Ok(())).await;
    check(
        &[&full[..], &[capacity_changed("c1", 4)]].concat(),
        subscribed("c1", "s4"),
        Ok(()),
    )
    .await;
    let twice = [defined("c1", 10), subscribed("c1", "s1")];
    check(&twice, subscribed("c1", "s1"), Err("s1 is in c1 already")).await;
    let mut busy: Vec<_> = (1..=6)
        .map(|course| defined(&format!("c{course}"), 10))
        .collect();
    busy.extend((1..=4).map(|course| subscribed(&format!("c{course}"), "s1")));
    check(&busy, subscribed("c6", "s1"), Ok(())).await;
    busy.push(subscribed("c5", "s1"));
    check(&busy, subscribed("c6", "s1"), Err("s1 is in 5 courses")).await;
    check(&busy, subscribed("c6", "s2"), Ok(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rush_fills_the_course_and_no_seat_more() {
    let handles: [_; 2] = processes();
    given(&handles[0], "course-c1", [defined("c1", 5)]).await;
    let tasks: Vec<_> = (0..16)
        .map(|who| {
            let db = handles[who % 2].clone();
            tokio::spawn(async move { decide(&db, &subscribed("c1", &format!("s{who}"))).await })
        })
        .collect();
    let mut seated = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => seated += 1,
            Err(CommandError::Refused(why)) => assert_eq!(why, "c1 is full"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((seated, head(&handles[0]).await), (5, 6));
}
