"""A BIDS Stats Model of three levels, to be changed by tests."""

FLANKER = {
    "Name": "flanker",
    "BIDSModelVersion": "1.0.0",
    "Input": {"task": ["flanker"]},
    "Nodes": [
        {
            "Level": "Run",
            "Name": "runs",
            "GroupBy": ["run", "subject"],
            "Transformations": {
                "Transformer": "pybids-transforms-v1",
                "Instructions": [
                    {"Name": "Factor", "Input": ["trial_type"]},
                    {"Name": "Convolve", "Model": "spm", "Input": ["trial_type.*"]},
                ],
            },
            "Model": {"X": [1, "trial_type.*", "trans_*", "rot_*", "cosine*"], "Type": "glm"},
            "Contrasts": [
                {
                    "Name": "inVcon",
                    "ConditionList": ["trial_type.incongruent", "trial_type.congruent"],
                    "Weights": [1, -1],
                    "Test": "t",
                },
                {
                    "Name": "go",
                    "ConditionList": ["trial_type.incongruent", "trial_type.congruent"],
                    "Weights": ["1/2", "1/2"],
                    "Test": "t",
                },
            ],
        },
        {
            "Level": "Subject",
            "Name": "subjects",
            "GroupBy": ["subject", "contrast"],
            "Model": {"X": [1], "Type": "glm"},
            "DummyContrasts": {"Test": "t"},
        },
        {
            "Level": "Dataset",
            "Name": "everyone",
            "GroupBy": ["contrast"],
            "Model": {"X": [1], "Type": "glm"},
            "DummyContrasts": {"Test": "t"},
        },
    ],
}
