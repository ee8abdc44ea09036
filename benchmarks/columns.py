"""Columns of every benchmark's table, for the scripts and for the documents."""

from tables import Column

# Attributes of heads that are classified.
HEAD_FACTORS = ("hair", "beard", "glasses", "headwear")
HEAD_NUMBERS = ("age", "weight", "gender", "smile", "open_mouth", "frown", "closed_eyes", "puffed_cheeks")
SET = Column("set", "heads")
ONE_NNA = Column("one_nna_chamfer", "1-NNA", "half")
COVERAGE = Column("coverage_chamfer", "coverage", "higher")
MMD = Column("mmd_chamfer_mm", "MMD, mm", "lower")
DIVERSITY = Column("diversity_mm", "diversity, mm", "reference")
NEAREST = Column("nearest_training_mm", "distance to the nearest training head, mm", "reference")
COPY_RATE = Column("copy_rate", "copy rate", "lower", digits=1, percent=True)
AUTHENTICITY = Column("authenticity", "authenticity", "half")
FRECHET = Column("frechet_distance", "Fréchet distance of normal maps", "lower", digits=0)
FRECHET_EFFICIENTNET = Column("frechet_distance_efficientnet", "Fréchet distance of EfficientNet", "lower")
MAPS_ONE_NNA = Column("one_nna_normal_maps", "1-NNA, normal maps", "half")
MAPS_COVERAGE = Column("knn_coverage_normal_maps", "k-NN coverage, normal maps", "higher")
SNC = Column("snc_distance", "SNC distance x 1000", "lower", digits=1)
ONE_COMPONENT = Column("one_component", "one component", "higher", digits=0, percent=True)
EMD_ONE_NNA = Column("one_nna_emd", "1-NNA, EMD", "half")
EMD_COVERAGE = Column("coverage_emd", "coverage, EMD", "higher")
EMD_MMD = Column("mmd_emd_mm", "MMD, EMD, mm", "lower")

GENERATORS = (
    SET,
    Column("training", "training time"),
    Column("steps", "steps", digits=0),
    ONE_NNA,
    COVERAGE,
    MMD,
    DIVERSITY,
    NEAREST,
    COPY_RATE,
    FRECHET,
    FRECHET_EFFICIENTNET,
    MAPS_ONE_NNA,
    MAPS_COVERAGE,
    SNC,
    ONE_COMPONENT,
    EMD_ONE_NNA,
    EMD_COVERAGE,
    EMD_MMD,
)
EVALUATION = (
    SET,
    ONE_NNA,
    Column("one_nna_chamfer_standardised", "1-NNA, standardised", "half"),
    EMD_ONE_NNA,
    COVERAGE,
    MMD,
    Column("normal_consistency", "normal consistency", "higher", digits=3),
    FRECHET,
    FRECHET_EFFICIENTNET,
    MAPS_ONE_NNA,
    MAPS_COVERAGE,
    SNC,
    DIVERSITY,
    NEAREST,
    COPY_RATE,
    AUTHENTICITY,
    ONE_COMPONENT,
    Column("human_size", "human size", digits=0, percent=True),
)
TRAINING_SET_SIZE = (
    Column("heads", "training heads", digits=0),
    ONE_NNA,
    COVERAGE,
    Column("diversity_mm", "diversity, mm"),
    COPY_RATE,
    Column("nearest_training_mm", "distance to the nearest training head, mm"),
    Column("test_nearest_training_mm", "the same of test heads, mm"),
)
MEAN_ERROR = Column("mean_mm", "mean surface error, mm", "lower", digits=3)
FIT_ERRORS = (
    MEAN_ERROR,
    Column("p95_mm", "95th percentile, mm", "lower", digits=3),
    Column("f1mm", "F-score at 1 mm", "higher", digits=3),
    Column("normals", "normals, cosine", "higher", digits=3),
    Column("face_angle_deg", "normals of the face, degrees", "lower", digits=1),
    Column("one_component", "one component", "higher", digits=1, percent=True),
)
FIT_QUALITY = (Column("fits", "fits"), *(Column(c.key, c.title, "", c.digits, c.percent) for c in FIT_ERRORS))
FIT_MIDPOINTS = (
    Column("pairs", "pairs", digits=0),
    Column("midpoint_mm", "distance to the true midpoint, mm", "lower"),
    Column("one_component", "one component", "higher", digits=0, percent=True),
)
FIT_NEIGHBOURS = (SET, Column("one_nna_chamfer", "1-NNA against heads never fitted", "half", digits=3))
FIT_SETTINGS = (
    Column("settings", "settings"),
    *FIT_ERRORS,
    Column("midpoint_mm", "error of the midpoint, mm", "lower"),
    Column("seconds_per_head", "time per head on one thread, s", "lower", digits=1),
)
FIT_SPEED = (
    Column("method", "method"),
    Column("steps", "steps x points"),
    MEAN_ERROR,
    Column("seconds_per_head", "time per head, s", "lower", digits=1),
    Column("heads_per_hour", "heads per hour", "higher", digits=0),
)
SPEED_UP = (
    Column("mean_mm", "mean surface error, mm", digits=3),
    Column("published_seconds", "published, s per head", digits=1),
    Column("our_seconds", "ours, s per head", digits=1),
    Column("speed_up", "speed-up", "higher", digits=0),
)
FIT_SCALE = (
    Column("scans", "scans", digits=0),
    Column("seconds", "time, s", digits=0),
    Column("seconds_per_head", "time per head, s"),
    Column("memory_mib", "peak memory, MiB", digits=0),
)
PREPARE_QUALITY = (
    Column("error", "error"),
    Column("median", "median"),
    Column("p95", "95th percentile"),
    Column("worst", "worst"),
    Column("bound", "bound", digits=0),
    Column("within_bound", "within the bound", "higher", digits=1, percent=True),
)
SAMPLE_SPEED = (
    Column("command", "command"),
    Column("heads", "heads", digits=0),
    Column("runs", "runs", digits=0),
    Column("min_seconds", "min, s", digits=1),
    Column("median_seconds", "median, s", digits=1),
    Column("max_seconds", "max, s", digits=1),
)
TRAIN_SCALE = (
    Column("heads", "heads", digits=0),
    Column("store_gib", "store, GiB", digits=1),
    Column("memory_gib", "memory limit, GiB", digits=1),
    Column("steps", "steps", digits=0),
    Column("seconds", "time, s", digits=0),
    Column("succeeded", "succeeded"),
)
DENOISER = (
    Column("task", "task"),
    Column("heads", "codes", digits=0),
    Column("mixture", "start", digits=3),
    Column("transformer", "with the transformer", digits=3),
    Column("optimum", "optimum", digits=3),
    Column("steps", "steps", digits=0),
    Column("best_step", "best step", digits=0),
    Column("seconds", "time, s", digits=0),
)
POPULATION = (
    SET,
    Column("val_loss", "validation loss", "lower", digits=3),
    Column("given_loss", "the same, attributes known", digits=3),
    Column("best_step", "best step", digits=0),
    ONE_NNA,
    COVERAGE,
    FRECHET,
    MAPS_ONE_NNA,
    MAPS_COVERAGE,
    DIVERSITY,
    COPY_RATE,
    ONE_COMPONENT,
    Column("combination_coverage", "coverage of combinations", "higher"),
    Column("half", "half factors", "lower", digits=1, percent=True),
    *(Column(f"half_{name}", f"half {name}", "lower", digits=1, percent=True) for name in HEAD_FACTORS),
    Column("withheld", "withheld combinations"),
    Column("accuracy", "classifier's accuracy", digits=1, percent=True),
)
CONTROL = (
    SET,
    *(Column(name, f"{name}: right level", "higher", digits=0, percent=True) for name in HEAD_FACTORS),
    *(Column(name, f"{name.replace('_', ' ')}: correlation", "higher") for name in HEAD_NUMBERS),
    MAPS_ONE_NNA,
    FRECHET,
    DIVERSITY,
    Column("within_mm", "neutral parts, same person, mm", "lower", digits=2),
    Column("between_mm", "different people, mm", digits=2),
)
METRICS_SPEED = (
    Column("method", "method"),
    Column("seconds", "time, s"),
    Column("memory_mib", "memory, MiB", digits=0),
    Column("max_difference_mm", "largest difference, mm", digits=6),
)
GPU_SPEED = (Column("what", "what"), Column("value", "result"), Column("memory_gib", "GPU memory, GiB", digits=1))
ALIGNMENT = (
    SET,
    Column("mean_mm", "fits: mean error, mm", "lower", digits=3),
    Column("worst_mm", "worst, mm", "lower", digits=3),
    Column("face_angle_deg", "normals of the face, degrees", "lower", digits=1),
    Column("seconds_per_head", "time per head on one thread, s", "lower", digits=1),
    Column("midpoint_one_component", "midpoints: one component", "higher", digits=0, percent=True),
    Column("midpoint_mm", "distance to the true midpoint, mm", "lower"),
    FRECHET,
    ONE_NNA,
    COVERAGE,
    COPY_RATE,
    AUTHENTICITY,
    DIVERSITY,
    ONE_COMPONENT,
)
COMPLETION = (
    Column("part", "what is seen"),
    Column("seen", "of the head", digits=0, percent=True),
    Column("seen_mm", "seen part: error, mm", "lower", digits=2),
    Column("unseen_mm", "unseen part: error, mm", "lower", digits=2),
    Column("mean_head_mm", "of the mean head", digits=2),
    Column("gaussian_mm", "of a Gaussian of registered vertices", digits=2),
    Column("to_mean_head", "ratio to the mean head", "lower", digits=2),
    Column("draw_mm", "of a draw", digits=2),
    Column("coverage", "90 % intervals contain the truth", digits=0, percent=True),
    Column("spread_unseen_mm", "spread of draws, unseen, mm", digits=2),
    Column("spread_seen_mm", "seen, mm", digits=2),
)
FEW_SCANS = (
    Column("set", "samples of the model of"),
    ONE_NNA,
    COVERAGE,
    MMD,
    FRECHET,
    MAPS_ONE_NNA,
    DIVERSITY,
    COPY_RATE,
    Column("nearest_training_mm", "distance to the nearest training head, mm"),
    Column("test_nearest_training_mm", "the same of test heads, mm"),
    ONE_COMPONENT,
    Column(
        "of_users_population", "nearer to the scans' population than to the prior's", "higher", digits=0, percent=True
    ),
    Column("dimensions", "dimensions", digits=0),
)
COMPLETION_NOISE = (
    Column("points", "points", digits=0),
    Column("noise_mm", "noise, mm", digits=1),
    Column("completed_mm", "completed head: error, mm", digits=2),
    Column("closed_mm", "closed scan: error, mm", digits=2),
)
