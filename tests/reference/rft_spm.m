% Makes rft_spm.json: numbers that SPM's functions give, for tests/stats/test_rft.py and test_resels.py.
%
%   octave-cli --path PATH_TO_SPM rft_spm.m > rft_spm.json
%
% Calls spm_ECdensity, spm_P_RF, spm_uc, spm_resels_vol and spm_est_smoothness by name. The numbers at hand
% were made on Octave 7.3 with SPM12's text of these (spm_uc_RF too). Stand-ins: distribution functions by
% Octave's betainc, gammainc, erf and erfc; quantiles by fzero on those; for the compiled spm_sample_vol and
% spm_resels_vol, loops that follow their C source, on maps held in memory (field data) instead of files.

1;

function mask = make_mask(name)
  if strcmp(name, 'ball')
    [x, y, z] = ndgrid(0:9, 0:8, 0:7);
    mask = ((x - 4.4) / 4.1).^2 + ((y - 4.0) / 3.6).^2 + ((z - 3.4) / 3.1).^2 < 1;
    mask(5, 5, 4) = false;
  elseif strcmp(name, 'box')
    mask = true(6, 5, 4);
  elseif strcmp(name, 'slice')
    mask = true(9, 7);
    mask(1:3, 1:2) = false;
  else
    mask = true(12, 1);
  end
end

function maps = make_maps(shape, n)
  shape(end + 1:3) = 1;
  [x, y, z] = ndgrid(0:shape(1) - 1, 0:shape(2) - 1, 0:shape(3) - 1);
  maps = zeros([shape n]);
  for k = 1:n
    for m = 1:5
      maps(:, :, :, k) = maps(:, :, :, k) + sin(0.37 * m * x + 0.29 * m^2 * y + 0.23 * (m + 1) * z + 1.7 * m * k^2);
    end
  end
end

out = struct();
rows = {};
kinds = {'Z', [1 1]; 'T', [1 7]; 'T', [1 19.5]; 'T', [1 200]; 'F', [2 12]; 'F', [4 30]; 'F', [1 15]};
resels = {[1 12.5], [1 20 90], [1 33.1 346.2 1200.7], [-4 18.2 75.1 61.9]};
for i = 1:size(kinds, 1)
  [stat, df] = kinds{i, :};
  for j = 1:numel(resels)
    R = resels{j};
    for u = [1.9 3.1 4.6 7.3 14.2 40]
      [P, ~, Ec, Ek] = spm_P_RF(1, 0, u, df, stat, R, 1);
      row = struct('kind', stat, 'df', df, 'resels', R, 'height', u, 'P', P, 'Ec', Ec, 'Ek', Ek);
      row.EC = spm_ECdensity(stat, u, df)';
      row.extents = [0.05 0.4 1.5 6];
      for e = 1:4
        [row.Pk(e), row.pk(e)] = spm_P_RF(1, row.extents(e), u, df, stat, R, 1);
      end
      rows{end + 1} = row;
    end
  end
end
out.fields = rows;

rows = {};
for i = 1:size(kinds, 1)
  [stat, df] = kinds{i, :};
  for j = 1:numel(resels)
    for S = [60 40000]
      for a = [0.05 0.001]
        u = spm_uc(a, df, stat, resels{j}, 1, S);
        rows{end + 1} = struct('kind', stat, 'df', df, 'resels', resels{j}, 'n', S, 'alpha', a, 'height', u);
      end
    end
  end
end
out.thresholds = rows;

rows = {};
names = {'ball', 'box', 'slice', 'line'};
for i = 1:numel(names)
  mask = make_mask(names{i});
  n = 8;
  maps = make_maps(size(mask), n);
  maps = maps - mean(maps, 4);
  maps = maps ./ sqrt(sum(maps.^2, 4) / (n - 1));
  V = struct('data', {});
  for k = 1:n
    one = maps(:, :, :, k);
    one(~mask) = NaN;
    V(k).data = one;
  end
  VM = struct('data', double(mask));
  [FWHM, ~, R] = spm_est_smoothness(V, VM, [n n - 1]);
  other = spm_resels_vol(VM, [1.7 2.9 3.3])';
  rows{end + 1} = struct('mask', names{i}, 'n', n, 'FWHM', FWHM, 'resels', R, 'other', other);
end
out.smoothness = rows;
disp(jsonencode(out));
